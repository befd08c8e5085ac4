"""Every page in every state: what it must say, and that names from outside are only ever text."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from service.dashboard.charts import effects_table
from service.dashboard.formatting import quantity
from service.dashboard.tables import launch_groups
from store.series import keep_metrics
from store.tables import Optimization, Run
from tests.service.dashboard.store import SETTINGS, TOKENS, Store, evidence

HOSTILE = '<script>alert("x")</script>&\'" onload=1'
VOID = {"meta", "link", "input", "br"}


class _Document(HTMLParser):
    """Reads a page as a browser would, and refuses what is not well nested or not named."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str | None] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        assert len(self.ids) == len(set(self.ids)), "an id appears twice"
        assert set(self.references) <= set(self.ids), "a label refers to nothing"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"] or "")
        self.references += (given.get("aria-labelledby") or "").split()
        assert "style" not in given, "the policy allows no inline style"
        assert not [name for name in given if name.startswith("on")], "the policy allows no inline script"
        if tag == "script":
            self.scripts.append(given.get("src"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def read(client: TestClient):
    """The words of a page that was found and is well made."""

    def read(path: str) -> str:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return _Document(answer.text).text

    return read


def test_an_empty_service_says_what_to_do(read) -> None:
    words = read("/")
    assert "POST /v1/optimizations" in words
    assert "make demo" in words


def test_an_export_shows_its_files_and_what_is_drawn(read, store: Store, client: TestClient) -> None:
    revision = store.domain_set()
    store.optimization(revision, "succeeded", ["succeeded"] * 3, proposal=evidence(TOKENS))
    mixture = client.get("/v1/mixtures").json()["items"][0]["id"]
    words = read(f"/mixtures/{mixture}/export?format=megatron&path=/d/%3Cb%3E/%7Bdomain%7D&repetition_cap=20")
    for expected in ("blend.txt", "splits.json", "/d/<b>/web:news", "Exactly this", "poetry", "1.04"):
        assert expected in words
    refused = client.get(f"/mixtures/{mixture}/export?format=megatron")
    assert refused.status_code == 422
    assert "needs the paths of every domain" in _Document(refused.text).text


def test_the_overview_lists_sets_optimizations_and_launches(read, store: Store, client: TestClient) -> None:
    revision = store.domain_set()
    done = store.optimization(revision, "succeeded", ["succeeded"] * 3, proposal=evidence(TOKENS))
    launch = store.launch(done, "proposed", "succeeded", 0.1)
    words = read("/")
    # 0.25 * (2.1 - 0.1) + 0.5 * (2.1 - 0.13) + 0.25 * (2.1 - 0.16)
    for expected in ("library", "proposed mixture", "succeeded", "1.9700"):
        assert expected in words
    html = client.get("/").text
    for path in (f"/optimizations/{done}", f"/launches/{launch}"):
        assert f'href="{path}"' in html
    assert done not in words, "what has a name is called by it"


def test_only_launches_of_like_objective_model_and_tokens_stand_together() -> None:
    tasks = [{"name": "law", "weight": 1.0}]
    settings = {"size": "micro-1M", "tokens": 1_000_000, "tasks": tasks}
    others = (
        {**settings, "tasks": [{"name": "law", "weight": 0.5}, {"name": "code", "weight": 0.5}]},
        {**settings, "size": "nano-0.1M"},
        {**settings, "tokens": 2_000_000},
        {**settings, "aggregate": "worst_family"},
        {**settings, "tasks": []},
    )
    launches = [
        {"id": number, "settings": one, "metrics": {}, "tokens": None}
        for number, one in enumerate((settings, *others, settings))
    ]
    groups = launch_groups(launches)
    assert [[launch["id"] for launch in group.launches] for group in groups] == [
        [0, 6],
        [1],
        [2],
        [3],
        [4],
        [5],
    ]
    assert len({group.words for group in groups}) == len(groups), "and each says what it is"


def test_lists_go_on_by_key(client: TestClient, store: Store) -> None:
    revision = store.domain_set()
    ids = [store.optimization(revision, "queued") for _ in range(27)]
    first = client.get("/").text
    following = re.search(r'href="(/\?after=[^"]+)"', first)
    assert following is not None
    second = client.get(following[1]).text
    assert [one for one in ids if one in first] == ids[2:]
    assert [one for one in ids if one in second] == ids[:2]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "failed"])
def test_a_domain_set_in_every_state(read, store: Store, state: str) -> None:
    store.domain_set("pool", {"web:news": 9_000_000, "books": 1_000_000}, state)
    words = read("/domain-sets/pool")
    assert "web:news" in words
    assert state in words
    if state == "succeeded":
        assert "9.0M" in words
        assert "90.00%" in words
    if state == "failed":
        assert "Preparation failed." in words
        assert "diverged" in words


def test_an_optimization_that_waits(read, store: Store) -> None:
    words = read(f"/optimizations/{store.optimization(store.domain_set(state='running'), 'queued')}")
    assert "Waiting for the domains to be prepared." in words
    assert "The swarm is not sampled yet." in words
    assert "Mixture Change is against" not in words


def test_an_optimization_under_way(client: TestClient, read, store: Store) -> None:
    states = ["succeeded"] * 5 + ["running"] * 2 + ["queued"] * 2 + ["failed"]
    path = f"/optimizations/{store.optimization(store.domain_set(), 'running', states)}"
    words = read(path)
    assert "Training proxy models: 5 of 10 runs done, under a minute left." in words
    assert "5 of 10, 2 running, 1 failed" in words
    rate = client.get(f"/v1{path}").json()["progress"]["tokens_per_second"]
    assert rate > 0
    assert f"{quantity(rate)} tokens/s" in words
    assert "1 lost run: the swarm went on without it" in words
    assert "The loss is not a number after step 211." in words
    page = client.get(path).text
    assert 'data-live="true"' in page
    assert _Document(page).scripts[0].startswith("/static/refresh.js?v=")


def test_a_failed_optimization_says_why(client: TestClient, read, store: Store) -> None:
    path = f"/optimizations/{store.optimization(store.domain_set(), 'failed', ['failed'] * 28)}"
    words = read(path)
    assert "The optimization failed. too_few_runs 12 runs finished and 39 are needed." in words
    assert 'data-live="false"' in client.get(path).text
    assert "refresh.js" not in client.get(path).text


def test_a_solved_optimization_shows_its_evidence(read, store: Store) -> None:
    solved = store.optimization(store.domain_set(), "succeeded", ["succeeded"] * 3, proposal=evidence(TOKENS))
    words = read(f"/optimizations/{solved}")
    assert "Done: 3 of 3 proxy runs trained." in words
    assert "Check with a launch" in words
    assert "Gain over natural +0.041 BPB +0.022 to +0.061" in words
    assert "poetry is at its cap of 4 epochs; 1M more tokens of it are worth 0.003 BPB." in words
    assert "No proxy run is near the proposed mixture." in words
    assert "held-out/novels not in the objective +0.144" in words
    assert "Predicted against measured" not in words


def test_what_other_caps_would_give_stands_with_what_the_runs_say_of_them(read, store: Store) -> None:
    proposal, revision = evidence(TOKENS), store.domain_set()
    proposal["caps"][2].update(beyond=[], supported=True)
    proposal["caps"][3].update(gain=None)
    words = read(f"/optimizations/{store.optimization(revision, 'succeeded', proposal=proposal)}")
    assert "4 asked for +0.0412 4.00 poetry 0.82 no: manuals:python and 1 more" in words
    assert "16 +0.0535 9.30 poetry 0.82 yes" in words
    assert "none No mixture keeps to it." in words
    for without in ({**proposal, "caps": None}, {**proposal, "caps": proposal["caps"][:1]}):
        found = store.optimization(revision, "succeeded", proposal=without)
        assert "another repetition cap" not in read(f"/optimizations/{found}")


def test_launches_are_held_against_the_prediction(read, store: Store) -> None:
    solved = store.optimization(store.domain_set(), "succeeded", ["succeeded"], proposal=evidence(TOKENS))
    store.launch(solved, "natural", "succeeded")
    launch = store.launch(solved, "proposed", "succeeded", 0.03)
    words = read(f"/optimizations/{solved}")
    # 0.25 * 0.03 + 0.5 * 0.039 + 0.25 * 0.048
    assert (
        "0.0390 better than 2.1000 on the natural distribution, within the interval of what a proxy" in words
    )
    assert "objective +0.041 +0.022 to +0.061 +0.039" in words
    measured = read(f"/launches/{launch}")
    assert "2.0610 BPB" in measured
    assert "1.1M non-embedding parameters" in measured
    assert "encyclopedia:science" in measured


def test_what_a_launch_measured_is_drawn_and_every_number_of_it_is_in_a_table(read, store: Store) -> None:
    solved = store.optimization(store.domain_set(), "succeeded", proposal=evidence(TOKENS))
    launch = store.launch(solved, "proposed", "running")
    losses = {step: 9.0 - step / 100 for step in range(1, 301)}
    with store.database.write() as session:
        run = session.query(Run).filter_by(launch_id=launch).one()
        rows = [("training/loss", step, value) for step, value in losses.items()]
        rows += [("arithmetic", 100, 2.25), ("arithmetic", 200, 2.125), ("python-docs", 200, 1.5)]
        keep_metrics(
            session, run.id, ({"task": n, "step": s, "tokens": 1000 * s, "value": v} for n, s, v in rows)
        )
    page = read(f"/launches/{launch}")
    assert "training/loss while it trained" in page
    assert "Between 6.0000 and 8.9500, at last 6.0000 after 300.0K tokens, 60 values." in page
    for number in ("8.9500", "6.0000", "2.2500", "2.1250"):
        assert f"{number} " in page
    assert "arithmetic while it trained" in page
    assert "python-docs while it trained" not in page
    assert "Held against the prediction" in page
    assert "It still trains" in page


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("queued", "Waiting for a worker."),
        ("running", "Training: 25% of the tokens."),
        ("failed", "The launch failed. diverged"),
        ("cancelled", "The launch was cancelled."),
    ],
)
def test_a_launch_in_every_state(read, store: Store, state: str, sentence: str) -> None:
    solved = store.optimization(store.domain_set(), "succeeded", proposal=evidence(TOKENS))
    assert sentence in read(f"/launches/{store.launch(solved, 'proposed', state)}")


def test_runs_are_paged_in_order(client: TestClient, store: Store) -> None:
    path = f"/optimizations/{store.optimization(store.domain_set(), 'running', ['queued'] * 30)}"
    following = re.search(r'href="(\?runs_after=[^"#]+)', client.get(path).text)
    assert following is not None
    second = client.get(path + following[1]).text
    rows = re.findall(r'<th scope="row"><a href="/runs/run_\w+">run (\d+)</a></th>', second)
    assert rows == ["25", "26", "27", "28", "29"]


def test_the_mixture_has_a_row_and_a_bar_for_each_domain_and_a_sum_for_each_source(
    client: TestClient, store: Store
) -> None:
    solved = store.optimization(store.domain_set(), "succeeded", proposal=evidence(TOKENS))
    page = client.get(f"/optimizations/{solved}").text
    drawn = re.search(r'<table id="mixture-table".*?</table>', page, re.S)
    assert drawn is not None
    table = ElementTree.fromstring(drawn[0])
    rows = table.findall("tbody/tr")
    sums = [row for row in rows if row.get("class") == "source"]
    assert len(rows) - len(sums) == len(TOKENS)
    assert ["".join(row[0].itertext()).split()[0] for row in sums] == ["code", "manuals"]
    assert len(table.findall(".//rect[@class='proposed']")) == len(rows)
    assert sums[0][2].text == "51.06%", "11.8M of 23.111M tokens are code's"


def test_hostile_names_are_text(client: TestClient, read, store: Store) -> None:
    tokens = {HOSTILE: 1_000_000, "a" * 255: 2_000_000}
    revision = store.domain_set("pool", tokens)
    proposal = evidence(tokens)
    proposal["tasks"][0]["name"] = HOSTILE
    proposal["warnings"][0]["message"] = HOSTILE
    proposal["constraints"] = [{"statement": HOSTILE}]
    solved = store.optimization(revision, "succeeded", ["succeeded"], tokens, proposal)
    launch = store.launch(solved, "proposed", "succeeded")
    for path in ("/domain-sets/pool", f"/optimizations/{solved}", f"/launches/{launch}"):
        assert "<script>alert" not in client.get(path).text
        assert HOSTILE in read(path)
    answer = client.get("/optimizations/<script>alert(1)<script>")
    assert answer.status_code == 404
    assert "<script>alert" not in answer.text
    assert 'value="/&lt;script&gt;"' in client.get("/login?next=/<script>").text


def test_evidence_without_numbers_is_shown_with_dashes(read, store: Store) -> None:
    proposal = evidence(TOKENS)
    proposal["objective"].update(gain_interval=None, rank_correlation=None, mae=None)
    for task in proposal["tasks"]:
        task.update(gain_interval=None, rank_correlation=None, mae=None, noise=None)
    for domain in proposal["domains"]:
        domain["cap"] = None
    proposal["constraints"], proposal["warnings"] = [], []
    proposal["held_out_rank_correlation"] = None
    solved = store.optimization(store.domain_set(), "succeeded", proposal=proposal)
    words = read(f"/optimizations/{solved}")
    assert "No run could be held out" in words
    assert "No cap and no share holds it back." in words


def test_a_baseline_speaks_of_no_runs(client: TestClient, read, store: Store) -> None:
    revision = store.domain_set()
    with store.database.write() as session:
        settings = {
            **SETTINGS,
            "runs": 0,
            "rounds": [],
            "minimum_runs": 0,
            "recipe": None,
            "proxy": None,
            "tasks": [],
        }
        row = Optimization(
            revision_id=revision, method="uniform", seed=0, settings=settings, state="succeeded"
        )
        session.add(row)
        session.flush()
        found = row.id
    words = read(f"/optimizations/{found}")
    assert "Done: nothing had to be trained." in words
    for absent in ("Proxy runs", "Train proxies", "Tokens trained"):
        assert absent not in words


def test_between_rounds_the_page_says_which(read, store: Store) -> None:
    found = store.optimization(store.domain_set(), "running", ["succeeded", "running"])
    with store.database.write() as session:
        row = session.get_one(Optimization, found)
        row.settings = {**row.settings, "runs": 4, "rounds": [2, 1, 1]}
    words = read(f"/optimizations/{found}")
    assert "Training proxy models, round 1 of 3: 1 of 4 runs done" in words


def test_the_effects_of_domains_are_a_table(read, store: Store) -> None:
    proposal = evidence(TOKENS)
    tasks = [task["name"] for task in proposal["tasks"]]
    proposal["effects"] = {task: dict.fromkeys(TOKENS, 0.01) for task in tasks}
    proposal["effects"]["arithmetic"]["poetry"] = -0.5
    words = read(f"/optimizations/{store.optimization(store.domain_set(), 'succeeded', proposal=proposal)}")
    assert "What more of each domain would do" in words
    assert "−0.00500" in words, "a hundredth of the mixture, not the whole of it"


def test_effects_are_shaded_beside_the_largest_of_their_task() -> None:
    proposal = evidence(TOKENS)
    domains = ["law", "novels", "poetry"]
    proposal["effects"] = {
        "arithmetic": {"law": -300.0, "novels": 150.0, "poetry": 1.0},
        "python-docs": {"law": 0.0, "novels": 0.0, "poetry": 0.0},
    }
    table = effects_table(proposal, domains)
    assert table is not None
    assert table.tasks == ["arithmetic", "python-docs"]
    assert [cells[0].shade for _, cells in table.rows] == ["better-3", "worse-2", ""]
    assert [cells[1].shade for _, cells in table.rows] == ["", "", ""]
    assert effects_table({**proposal, "effects": {}}, domains) is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/optimizations/opt_0", 404),
        ("/launches/launch_0", 404),
        ("/domain-sets/none", 404),
        ("/domain-sets/none?revision=0", 422),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>" in answer.text
