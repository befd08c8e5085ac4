"""Pages for reading what the API answers: server-rendered, offline, without JavaScript."""
