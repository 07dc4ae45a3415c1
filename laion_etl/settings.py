"""Every knob: its unit, its default and why. Read from LAION_ETL_* and one TOML file.

A knob `field` of group `download` is `LAION_ETL_DOWNLOAD_FIELD` in the environment and
`field = ...` under `[download]` in the TOML file (LAION_ETL_CONFIG, else ./laion_etl.toml);
the knobs of the first group have no group name. The environment wins over the file.
docs/configuration.md is generated from this module.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from laion_etl.errors import SettingsError

PREFIX = "LAION_ETL_"
DEFAULT_CRAWL_SOURCE = "https://data.commoncrawl.org"

Entries = tuple[tuple[str, str], ...]  # a TOML table of texts


def _knob(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


def _secret(default: str, doc: str) -> Any:
    """A knob that is never logged and never written into a pod."""
    return field(default=default, metadata={"doc": doc, "secret": True})


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Where things are and where stages run."""

    store: str = _knob("", "Folder or s3://bucket/prefix of all data files. Empty: the data folder.")
    data_dir: str = _knob("data", "Local folder for the embedded Postgres and demo state.")
    database_url: str = _secret("", "postgresql:// URL. Empty: an embedded server in the data folder.")
    crawl_source: str = _knob(
        DEFAULT_CRAWL_SOURCE,
        "Where crawl-data/<crawl>/wat.paths.gz is: https://, s3:// or a folder.",
    )
    collinfo: str = _knob(
        "", "URL of collinfo.json. Empty: index.commoncrawl.org, or <crawl source>/collinfo.json."
    )
    catalogue: str = _knob("", "JSON file of known crawls for DAGs. Empty: the shipped list.")
    registered: str = _knob(
        "",
        "JSON file of dumps found since, kept by `laion-etl crawls --refresh --register` and the DAG "
        "new_dumps; where Airflow's parts have folders of their own, on one they share. Empty: crawls.json "
        "in the data folder.",
    )
    runner: str = _knob(
        "local",
        "Where Airflow runs stage commands: local (a process beside the task), venv (another Python) or "
        "kubernetes (a pod each). A run may choose another one by its parameter.",
    )
    wat_files_sample: int = _knob(
        1, "Of the WAT files of a crawl only every one whose number is a multiple of this; 1: all."
    )
    run_id: str = _knob(
        "",
        "Stands before every log line of a command, to join lines with a task of Airflow, which sets it: "
        "run, task and map index.",
    )
    statsd: str = _knob(
        "",
        "host:port of a StatsD server that gets over UDP what each unit of a stage counted and how long it "
        "took, and every five seconds the numbers of download workers. Empty: none.",
    )
    statsd_tags: tuple[str, ...] = _knob(
        ("crawl",),
        "What stage metrics are tagged with, as DogStatsD does: crawl, run (LAION_ETL_RUN_ID: a time series "
        "for every task), comma separated. Servers of the plain protocol want none.",
    )
    task_retries: int = _knob(3, "Further tries of a task that failed, in Airflow.")
    task_retry_delay_s: float = _knob(
        30.0, "Wait before the first of them, seconds; each later wait is twice as long, to half an hour."
    )
    wat_files_per_partition: int = _knob(
        100, "WAT files handled by one task; 100 makes about 900 partitions of a dump."
    )


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """Rules for links and alt texts (LAION-5B section 3, and the original's code)."""

    preset: str = _knob(
        "default", "Defaults of this group: default, or laion5b for the original's rules without ours."
    )
    min_alt_chars: int = _knob(5, "Shortest alt text kept, characters.")
    max_alt_chars: int = _knob(2000, "Alt text is cut after this many characters.")
    max_url_chars: int = _knob(2000, "Longest URL kept, characters.")
    max_host_chars: int = _knob(60, "Longest host name kept, characters.")
    refused_extensions: tuple[str, ...] = _knob(
        (".svg", ".gif"), "URL path endings that are out, comma separated."
    )
    language_detector: str = _knob(
        "cld3",
        "Language detector: cld3 (the original's), py3langid (better on short texts), none, module:factory.",
    )
    refuse_trackers: bool = _knob(True, "Tracking pixels, by host and file name, are out.")
    refuse_placeholder_words: bool = _knob(True, 'Texts such as "image", "logo" or "no photo" are out.')
    refuse_placeholder_file_names: bool = _knob(True, 'Texts such as "IMG_1234.JPG" are out.')
    refuse_placeholder_hashes: bool = _knob(
        True, "Texts that are a hash, a UUID or another identifier are out."
    )
    refuse_placeholder_dates: bool = _knob(True, "Texts of nothing but numbers, dates and times are out.")
    max_text_repeats: int = _knob(
        100, "Pairs with the same text kept of one WAT file (boilerplate); 0 keeps all."
    )
    dedupe_pairs: int = _knob(
        1_000_000,
        "Pairs remembered for duplicates within a partition, up to 43 bytes each; beyond it the oldest are "
        "forgotten, and Postgres finds what then slips through.",
    )
    blocked_domains: tuple[str, ...] = _knob(
        (), "Lists of domains that are out: paths, s3:// or https://, comma separated (docs/blocklists.md)."
    )
    blocked_urls: tuple[str, ...] = _knob((), "Lists of URLs and folders of URLs that are out.")
    blocked_url_patterns: tuple[str, ...] = _knob((), "Lists of RE2 expressions; URLs with a match are out.")
    blocked_pairs: tuple[str, ...] = _knob((), "Lists of pair ids (MD5 of URL and text) that are out.")
    jobs: int = _knob(0, "Processes that parse the WAT files of a partition; 0 means one per core.")
    language_min_bytes: int = _knob(5, "Shorter texts get no language, UTF-8 bytes.")
    language_max_bytes: int = _knob(
        2000, "Most UTF-8 bytes of a text looked at: py3langid takes its start, CLD3 pieces of all of it."
    )
    languages: tuple[str, ...] = _knob(
        (),
        "Languages of texts that are kept, as the detector names them, comma separated; `none` for texts "
        "without one. Empty: all.",
    )
    language_min_probability: float = _knob(
        0.1, "py3langid: less likely languages count as none; CLD3 has a rule of its own."
    )

    def rules(self) -> "ParseSettings":
        """These settings without what changes no output, for the fingerprint of a partition.

        Nor the places of blocklists: what is in them is part of the fingerprint by itself.
        """
        return replace(
            self,
            jobs=0,
            preset="",
            blocked_domains=(),
            blocked_urls=(),
            blocked_url_patterns=(),
            blocked_pairs=(),
        )


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The connection to Postgres, and how patient it is. See core for its URL."""

    statement_timeout_s: float = _knob(60.0, "Longest statement of the queue and of status, seconds.")
    bulk_timeout_s: float = _knob(
        21_600.0, "Longest statement of load, plan and forget, seconds; 0: no limit."
    )
    idle_timeout_s: float = _knob(
        600.0, "A client silent this long within a transaction loses it, and its locks, seconds."
    )
    retry_for_s: float = _knob(
        60.0, "How long a lost connection is opened again, and conflicts are tried again, seconds."
    )
    pair_leaves: int = _knob(
        16, "Tables that table pair is cut into when the schema is made (docs/scaling-postgres.md)."
    )
    conn_id: str = _knob(
        "", "Airflow connection whose Postgres the DAGs' commands use in place of LAION_ETL_DATABASE_URL."
    )
    sslmode: str = _knob(
        "", "TLS of the connection: require, verify-ca, verify-full ...; empty: what the URL or libpq says."
    )
    sslrootcert: str = _knob("", "File of the certificates that the server's is checked against, or system.")
    sslcert: str = _knob("", "File of the client's certificate.")
    sslkey: str = _knob("", "File of the client's key.")


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What counts as a duplicate."""

    dedupe: str = _knob(
        "pair",
        "pair: URL and text together (the original's rule); url: the URL alone, the best text is kept. "
        "Fixed by the first load into a database.",
    )
    connections: int = _knob(2, "Connections through which the rows of a partition go side by side.")


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How new pairs are cut into batches."""

    batch_size: int = _knob(10_000, "Pairs per batch at most (the original's work unit).")
    max_pairs_per_host: int = _knob(
        1_000, "Pairs of one host in a batch at most; a crawl of few hosts gets more and smaller batches."
    )
    per_language: bool = _knob(
        False, "Batches of one language; languages without a full batch share theirs with each other."
    )
    window_pairs: int = _knob(1_000_000, "Pairs dealt out to batches together, about 0.6 kB of memory each.")


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """The downloader: limits for hostile servers and images, and what is kept."""

    connections: int = _knob(
        0, "Links in flight at once in one worker; 0: as many as the network, resolver and cores can take."
    )
    connections_per_host: int = _knob(8, "Links in flight at once to one host (politeness).")
    connections_per_domain: int = _knob(16, "Links in flight at once to one registered domain.")
    requests_per_host_s: float = _knob(20.0, "Most requests a second to one host; 0: no limit.")
    requests_per_domain_s: float = _knob(
        50.0, "Most requests a second to one registered domain; 0: no limit."
    )
    retries: int = _knob(
        1, "Further tries of a link that failed for a reason that passes: 5xx, 429, a broken connection."
    )
    longest_wait_s: float = _knob(
        30.0, "A host that asks for a longer wait (Retry-After) gets no more requests in this batch, seconds."
    )
    nameservers: tuple[str, ...] = _knob(
        (),
        "Asked over UDP and TCP by our own resolver: addresses (with :port), or 'system' for those of "
        "/etc/resolv.conf. Empty: the system's getaddrinfo, in threads.",
    )
    resolve_timeout_s: float = _knob(5.0, "One try to resolve a name, seconds.")
    connect_timeout_s: float = _knob(5.0, "TCP connection, all addresses of a host, seconds.")
    tls_timeout_s: float = _knob(5.0, "TLS handshake, seconds.")
    first_byte_timeout_s: float = _knob(10.0, "From the request to the first byte of the answer, seconds.")
    idle_timeout_s: float = _knob(5.0, "Silence in the middle of an answer, seconds.")
    timeout_s: float = _knob(20.0, "One link in all its hops, without waiting for its turn, seconds.")
    max_redirects: int = _knob(5, "Redirect hops followed; every hop is checked like the first.")
    max_bytes: int = _knob(20_000_000, "Longest image body read, before and after decompression, bytes.")
    min_bytes: int = _knob(5_000, "Smallest image kept, bytes (the original's rule).")
    max_pixels: int = _knob(89_478_484, "Largest image decoded, pixels (the original's rule).")
    min_side: int = _knob(0, "Images with a shorter side than this are out, pixels.")
    max_aspect_ratio: float = _knob(
        0.0, "Images longer than this many times their width are out; 0: no limit."
    )
    decode_timeout_s: float = _knob(10.0, "One decode in its worker process, seconds.")
    decode_memory_mb: int = _knob(2_048, "Address space of a decoder process, MiB.")
    decoders: int = _knob(0, "Decoder processes; 0 means one per core.")
    resize_mode: str = _knob(
        "keep_ratio",
        "As in img2dataset: no, keep_ratio (shorter side to image_size), keep_ratio_largest (longer side), "
        "center_crop, border (white).",
    )
    image_size: int = _knob(256, "Side that resize_mode scales to, pixels.")
    resize_only_if_bigger: bool = _knob(
        True, "Images that are small enough are not scaled up; if plain they stay as they came, byte by byte."
    )
    encode_format: str = _knob("jpg", "What images that were changed are stored as: jpg, webp, png or avif.")
    encode_quality: int = _knob(95, "Quality of JPEG, WebP and AVIF, 1 to 100.")
    perceptual_hashes: bool = _knob(
        True,
        "Compute phash and PDQ. Off, images that are stored as they came are not decoded: only their "
        "headers and ends are checked.",
    )
    ports: tuple[int, ...] = _knob((80, 443), "Ports a link may name, comma separated.")
    connect_to: tuple[str, ...] = _knob(
        (),
        "Test and demo only: 'host-pattern=address:port' entries, comma separated, that are "
        "connected to instead of resolved, exempt from the address guard and from rate limits.",
    )
    allow_networks: tuple[str, ...] = _knob(
        (), "Test and benchmark only: networks (CIDR) that the address guard lets through."
    )
    verify_tls: bool = _knob(
        True, "Refuse bad certificates; off accepts them, as the original did: anybody on the way can answer."
    )
    user_agent: str = _knob(
        "laion_etl/0.1 (operator contact not set)",
        "User-Agent sent; name yourself and a contact URL.",
    )
    opt_out: bool = _knob(
        True,
        "Honour what answers and images say: X-Robots-Tag noai, noimageai, noindex, noimageindex, noml; "
        "tdm-reservation; IPTC/PLUS data mining and C2PA training properties.",
    )
    tdmrep: bool = _knob(True, "Honour /.well-known/tdmrep.json (W3C TDMRep), one request per host.")
    robots_txt: bool = _knob(True, "Honour robots.txt (RFC 9309), one request per host.")
    hash_blocklist: str = _knob(
        "", "File of MD5 or SHA-256 hex digests, one a line; matching images are never written."
    )
    pdq_blocklist: str = _knob(
        "", "File of PDQ hashes, 64 hex digits a line; images near to one are never written."
    )
    pdq_distance: int = _knob(31, "Bits of 256 in which a PDQ hash may differ from a blocked one.")
    metrics_file: str = _knob(
        "", "Prometheus text file (for node_exporter's textfile collector) kept up to date by a worker."
    )
    grace_s: float = _knob(
        20.0, "After SIGTERM a worker has this long to finish its batch, then gives it back, seconds."
    )
    lease_s: int = _knob(120, "A claimed batch whose worker is silent this long is given to another.")
    max_attempts: int = _knob(3, "Claims of a batch before it is parked as failed.")


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """The CLIP model and its thresholds (LAION-5B section 3.2)."""

    model: str = _knob(
        "ViT-B-32",
        "open_clip model name, hf-hub:ORGANISATION/NAME, local-dir:PATH, or 'laion-etl-tiny' (the demo's).",
    )
    pretrained: str = _knob(
        "openai", "open_clip pretrained tag or a checkpoint file; the demo's weights are 'scenes'."
    )
    other_model: str = _knob(
        "",
        "open_clip model of the pairs that are not English, for example xlm-roberta-base-ViT-B-32. "
        "Empty: the same model for all.",
    )
    other_pretrained: str = _knob("", "Its pretrained tag or checkpoint file.")
    threshold_en: float = _knob(
        0.28,
        "English pairs below this similarity are dropped. While both thresholds have their defaults, "
        "the demo's model uses the ones calibrated for its weights.",
    )
    threshold_other: float = _knob(
        0.26, "Other pairs, and those without a language, below this similarity are dropped."
    )
    batch_size: int = _knob(256, "Images per forward pass.")
    device: str = _knob(
        "auto", "auto (all GPUs, else the CPU), cpu, cuda, or several: cuda:0,cuda:1; a process each."
    )
    precision: str = _knob("auto", "auto (bf16 on GPUs, fp32 on CPUs), fp32, bf16 or fp16.")
    preparers: int = _knob(
        0, "Processes that decode images and tokenise texts for the model; 0 means one per core."
    )
    max_pixels: int = _knob(89_478_484, "Largest image decoded from a shard, pixels.")


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """Tags for safety and beauty."""

    prompts: str = _knob(
        "", "JSON file of zero-shot category prompts. Empty: the shipped set of the chosen model."
    )
    aesthetic_head: str = _knob(
        "",
        "Aesthetic head (torch state dict of LAION's predictor v1 or v2) for the CLIP model; like all heads "
        "a path or path#sha256=HEX. Empty: the model's own, if any.",
    )
    nsfw_head: str = _knob(
        "", "NSFW head (made by `laion-etl convert-head`): gives punsafe. Empty: by zero-shot categories."
    )
    violence_head: str = _knob(
        "", "Two text embeddings (.npy): gives pviolence. Empty: by zero-shot categories."
    )
    watermark_model: str = _knob(
        "",
        "Image model that gives pwatermark: LAION's watermark_model_v1.pt, a file of our own format, or "
        "module:factory. Empty: the demo model's own, else by zero-shot prompts where there are some.",
    )


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """The published dataset."""

    name: str = _knob("laion", "Name of the dataset.")
    rows_per_file: int = _knob(1_000_000, "Rows per parquet file.")
    high_resolution_px: int = _knob(1024, "Both sides at least this: the high-resolution subset.")
    aesthetic_min: float = _knob(5.0, "Aesthetic score of the aesthetic subset.")
    duplicates: str = _knob(
        "keep",
        "Pairs that show the same picture: keep all (as the original did), or publish the best pair of "
        "those with equal files (exact), or with equal or nearly equal pictures (near).",
    )
    duplicate_bits: int = _knob(
        10, "Bits of 256 in which PDQ hashes of nearly equal pictures differ, at most 15."
    )
    duplicates_of_earlier: bool = _knob(
        False,
        "Look for them also among what this dataset has of earlier crawls; such pairs are left out, "
        "published versions stay as they are.",
    )
    subsets: tuple[tuple[str, str], ...] = _knob(
        (),
        "Subsets of one's own, name = SQL condition over the published columns: a table [publish.subsets] in "
        "the file, here as TOML, `big-cats = \"TEXT ILIKE '%cat%' AND similarity > 0.3\"` "
        "(docs/formats.md).",
    )
    variants: tuple[str, ...] = _knob(
        ("research",),
        "What is published: research (all that passed), research-safe (without what is tagged unsafe, as a "
        "dataset of its own, <name>-research-safe), or both, comma separated.",
    )
    safe_leaves_out: tuple[str, ...] = _knob(
        ("NSFW",), "NSFW tags that are not in research-safe: NSFW, or NSFW,UNSURE; untagged rows never are."
    )
    safe_max_punsafe: float = _knob(
        1.0, "Rows with a higher punsafe are not in research-safe; 1: punsafe does not matter."
    )
    contact: str = _knob("", "Where people ask for removal, printed on the dataset card.")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The index of a published dataset that `laion-etl search` and `laion-etl explore` look into."""

    dtype: str = _knob(
        "f16", "Numbers of the indexed vectors: f16, as they were scored, or i8: half the size, rounded."
    )
    connectivity: int = _knob(16, "Neighbours of a vector in the graph: more finds better and takes memory.")
    expansion_add: int = _knob(128, "Candidates looked at when a vector is added: more is slower and better.")
    expansion_search: int = _knob(128, "Candidates looked at in a search: more is slower and finds more.")
    rows_per_part: int = _knob(
        500_000,
        "Rows indexed together, whole batches, before anything was left out. A part is built in memory: "
        "about 1.2 kB a row with 512 f16 numbers.",
    )
    jobs: int = _knob(2, "Parts built at the same time, each by one core and in memory of its own.")
    exact_rows: int = _knob(
        10_000, "When a part has, or the filters leave of it, at most so many rows, each is compared."
    )
    pictures: bool = _knob(
        True,
        "Note where the pictures lie in the tars, so that the page can show them. On S3 that fetches every "
        "tar once.",
    )


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Who is told of failed and late partitions, and when they are late. The log always is."""

    smtp: str = _knob("", "Mail server, host:port. Empty: no mail.")
    smtp_tls: str = _knob("starttls", "starttls, tls (from the first byte), or none.")
    smtp_user: str = _knob("", "User of the mail server. Empty: none is asked for.")
    smtp_password: str = _secret("", "The user's password; better from a secret than from a file.")
    mail_from: str = _knob("laion_etl@localhost", "Sender of mails.")
    mail_to: tuple[str, ...] = _knob((), "Who gets mail, comma separated. Empty: nobody.")
    webhook: str = _secret(
        "", "URL that gets alerts as JSON by POST: Slack's incoming webhooks and others that show `text`."
    )
    late_after: tuple[str, ...] = _knob(
        ("discover=10m", "parse=4h", "load=1h", "plan=3h", "download=7d", "score=3d", "publish=6h"),
        "A task of these stages that takes longer is late; stage=number and s, m, h or d, comma separated.",
    )
    run_days: float = _knob(21.0, "A run that is not done this many days after its start is late.")
    most_alike: int = _knob(
        3, "Alerts of a run with the same stage and cause that are sent; the digest counts all."
    )


@dataclass(frozen=True, slots=True)
class AirflowSettings:
    """What the DAGs' tasks use of Airflow, and the other Python of the runner venv."""

    parse_pool: str = _knob(
        "default_pool",
        "Pool of parse tasks. A pool has to exist, or its tasks wait for ever; docker/pools.json has "
        "laion_parse, laion_download and laion_gpu.",
    )
    download_pool: str = _knob("default_pool", "Pool of download tasks, such as laion_download.")
    score_pool: str = _knob("default_pool", "Pool of score tasks, such as laion_gpu.")
    s3_conn_id: str = _knob(
        "",
        "Airflow connection (type aws) whose keys, region and endpoint commands get that run beside Airflow. "
        "Empty: what boto3 finds by itself. Pods have a Secret or a service account.",
    )
    venv: str = _knob("", "Runner venv: path of that environment's python, or of its laion-etl. No default.")


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """Runner kubernetes: a pod for each task, started through Airflow's connection.

    Lists by stage are `stage=value` entries, comma separated; `other` is for the stages not named.
    """

    conn_id: str = _knob("kubernetes_default", "Airflow connection to the cluster.")
    namespace: str = _knob("", "Namespace of the pods. Empty: the connection's, else the one Airflow is in.")
    image: str = _knob("", "Image of the pods, with its tag or digest. No default.")
    gpu_image: str = _knob("", "Image of score pods with a GPU. Empty: the same.")
    image_pull_secrets: tuple[str, ...] = _knob((), "Secrets to pull images with, comma separated.")
    service_account: str = _knob(
        "",
        "Service account of the pods; with an IAM role (IRSA) they need no S3 keys. Empty: the namespace's "
        "default. No token for the cluster's API is mounted.",
    )
    secrets: tuple[str, ...] = _knob(
        (),
        "Secrets whose entries become environment variables of the pods: LAION_ETL_DATABASE_URL, "
        "AWS_ACCESS_KEY_ID ... Secrets come to pods in no other way.",
    )
    config_maps: tuple[str, ...] = _knob(
        (),
        "ConfigMaps whose entries become environment variables of the pods. What is set for Airflow itself "
        "and is no secret is passed on anyway, and wins.",
    )
    cpu: tuple[str, ...] = _knob(
        ("parse=4", "download=2", "score=4", "publish=4", "other=1"), "Cores requested, by stage."
    )
    cpu_limit: tuple[str, ...] = _knob(
        (),
        "Most cores, by stage; stages not named: what they request. A command starts as many processes as "
        "it may use cores.",
    )
    memory: tuple[str, ...] = _knob(
        ("parse=4Gi", "download=4Gi", "score=8Gi", "publish=8Gi", "other=2Gi"), "Memory requested, by stage."
    )
    memory_limit: tuple[str, ...] = _knob(
        (), "Most memory, by stage, above which a pod is killed; stages not named: what they request."
    )
    scratch: tuple[str, ...] = _knob(
        ("download=8Gi", "score=8Gi", "publish=40Gi", "other=4Gi"),
        "Most disk, by stage: an emptyDir at /tmp. The rest of a pod's file system is read-only.",
    )
    gpus: int = _knob(0, "GPUs of a score pod.")
    gpu_resource: str = _knob("nvidia.com/gpu", "What the cluster calls a GPU.")
    gpu_node_selector: tuple[str, ...] = _knob(
        (), "Labels of nodes for score pods with a GPU, label=value, comma separated."
    )
    gpu_tolerations: tuple[str, ...] = _knob(
        ("nvidia.com/gpu:NoSchedule",),
        "Taints that score pods with a GPU stand: key:effect or key=value:effect, comma separated.",
    )
    node_selector: tuple[str, ...] = _knob((), "Labels of nodes for the other pods.")
    tolerations: tuple[str, ...] = _knob((), "Taints that the other pods stand.")
    schedule_timeout_s: int = _knob(
        3_600, "A pod that has no node after this long is given up and tried again later, seconds."
    )
    startup_timeout_s: int = _knob(
        900, "A pod that has not begun this long after it got a node is given up, seconds."
    )
    poll_s: float = _knob(10.0, "How often the triggerer looks at a pod, seconds.")
    logs_s: int = _knob(30, "How often new lines of a pod's log are fetched into the task's, seconds.")
    price_hour: float = _knob(0.0, "Price of an hour of a pod, for estimates. 0: none is shown.")
    gpu_price_hour: float = _knob(0.0, "Price of an hour of a score pod with a GPU.")


@dataclass(frozen=True, slots=True)
class Settings:
    """All groups; `store_uri` and `collinfo_uri` fill in the defaults that depend on other knobs."""

    core: CoreSettings = field(default_factory=CoreSettings)
    parse: ParseSettings = field(default_factory=ParseSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    load: LoadSettings = field(default_factory=LoadSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    download: DownloadSettings = field(default_factory=DownloadSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    safety: SafetySettings = field(default_factory=SafetySettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    airflow: AirflowSettings = field(default_factory=AirflowSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)

    @property
    def store_uri(self) -> str:
        return self.core.store or self.core.data_dir

    @property
    def data_path(self) -> Path:
        return Path(self.core.data_dir)

    @property
    def registered_path(self) -> Path:
        """Dumps that `laion-etl crawls --refresh --register` found."""
        return Path(self.core.registered) if self.core.registered else self.data_path / "crawls.json"

    @property
    def collinfo_uri(self) -> str:
        if self.core.collinfo:
            return self.core.collinfo
        if self.core.crawl_source == DEFAULT_CRAWL_SOURCE:
            return "https://index.commoncrawl.org/collinfo.json"
        return f"{self.core.crawl_source.rstrip('/')}/collinfo.json"


def of_stage(entries: tuple[str, ...], stage: str, variable: str) -> str:
    """What a list by stages (`parse=4,other=1`) says of a stage; '' for nothing. Raises SettingsError."""
    found = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not (name and value):
            raise SettingsError(f"{variable}: {entry!r} is not like {stage}=value")
        found[name] = value
    return found.get(stage, found.get("other", ""))


@dataclass(frozen=True, slots=True)
class Knob:
    """One knob as the documentation shows it."""

    group: str
    name: str
    variable: str
    type: type
    default: Any
    doc: str
    secret: bool


def knobs() -> list[Knob]:
    """All knobs in the order of this module."""
    return [
        Knob(
            group.name,
            knob.name,
            _variable(group.name, knob.name),
            get_type_hints(_group_class(group))[knob.name],
            knob.default,
            knob.metadata["doc"],
            knob.metadata.get("secret", False),
        )
        for group in fields(Settings)
        for knob in fields(_group_class(group))
    ]


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment and the TOML file; raises SettingsError naming the bad entry."""
    environ = os.environ if environ is None else environ
    known = {knob.variable: knob for knob in knobs()}
    values = _from_file(environ, known) | _from_environment(environ, known)
    groups: dict[str, dict[str, Any]] = {}
    for variable, value in values.items():
        knob = known[variable]
        groups.setdefault(knob.group, {})[knob.name] = _coerce(knob, value)
    parse = groups.setdefault("parse", {})
    groups["parse"] = _preset(parse.get("preset", "default")) | parse
    return Settings(
        **{group.name: _group_class(group)(**groups.get(group.name, {})) for group in fields(Settings)}
    )


# The original's rules: what it kept is kept. What is out for safety (private hosts, blocklists) stays out.
_PARSE_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "laion5b": {
        "refuse_trackers": False,
        "refuse_placeholder_words": False,
        "refuse_placeholder_file_names": False,
        "refuse_placeholder_hashes": False,
        "refuse_placeholder_dates": False,
        "max_text_repeats": 0,
    },
}


def _preset(name: str) -> dict[str, Any]:
    """What a preset of the parse group sets; anything set beside it wins."""
    if name not in _PARSE_PRESETS:
        raise SettingsError(f"{PREFIX}PARSE_PRESET={name!r} is none of {', '.join(_PARSE_PRESETS)}")
    return _PARSE_PRESETS[name]


def _group_class(group: "Field[Any]") -> Any:
    return get_type_hints(Settings)[group.name]


def _variable(group: str, name: str) -> str:
    return f"{PREFIX}{name}".upper() if group == "core" else f"{PREFIX}{group}_{name}".upper()


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Knob]) -> dict[str, Any]:
    found = {k: v for k, v in environ.items() if k.startswith(PREFIX) and k != f"{PREFIX}CONFIG"}
    for variable in found:
        if variable not in known:
            raise SettingsError(f"{variable} is no setting{_suggestion(variable, known)}")
    return found


def _from_file(environ: Mapping[str, str], known: Mapping[str, Knob]) -> dict[str, Any]:
    named = environ.get(f"{PREFIX}CONFIG")
    path = Path(named or "laion_etl.toml")
    if not path.is_file():
        if named:
            raise SettingsError(f"{PREFIX}CONFIG names {named}, which does not exist")
        return {}
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    values = {}
    for key, value in document.items():
        entries = value.items() if isinstance(value, dict) else [(None, value)]
        for name, entry in entries:
            variable = _variable(key, name) if name is not None else _variable("core", key)
            if variable not in known:
                place = f"[{key}] {name}" if name is not None else key
                raise SettingsError(f"{path}: {place} is no setting{_suggestion(variable, known)}")
            values[variable] = entry
    return values


def _suggestion(variable: str, known: Mapping[str, Knob]) -> str:
    close = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; see docs/configuration.md"


def _coerce(knob: Knob, value: Any) -> Any:
    kind: Any = knob.type
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
        if kind in (int, float):
            return kind(str(value))
        if kind is str:
            return str(value)
        if kind == Entries:
            return _entries(value)
        item = kind.__args__[0]
        parts = value if isinstance(value, list) else [p for p in str(value).split(",") if p.strip()]
        return tuple(item(str(part).strip()) for part in parts)
    except (ValueError, KeyError) as error:
        expected = "table of texts" if kind == Entries else getattr(kind, "__name__", str(kind))
        raise SettingsError(f"{knob.variable}={value!r} is not a valid {expected}") from error


def _entries(value: Any) -> Entries:
    """A table of the TOML file, or the same as text."""
    table = value if isinstance(value, dict) else tomllib.loads(str(value))
    if not all(isinstance(entry, str) for entry in table.values()):
        raise ValueError("every entry has to be a text")
    return tuple(table.items())


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
