"""The store: tables, the engine that opens them, and the job rows everything waits on."""
