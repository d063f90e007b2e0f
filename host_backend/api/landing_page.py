"""The landing page for people: one page of HTML without a script, read as well on a phone, in light and in dark."""

from collections.abc import Iterable
from html import escape

from host_backend.api.landing import KeyShown, State, VaultShown
from host_backend.steps import Work

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --line: #d8dee4; --card: #fff; --back: #f4f6f8;
  --good: #116329; --bad: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4af; --line: #30363d; --card: #161b22;
  --back: #0d1117; --good: #56d364; --bad: #ff7b72; } }
* { box-sizing: border-box; } body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem;
  margin-bottom: 1rem; }
p { margin: .25rem 0 0; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.state { font-weight: 600; } code { font: .9em ui-monospace, monospace; } a { color: inherit; }
ul { list-style: none; margin: 0; padding: 0; } li { border-top: 1px solid var(--line); padding: .6rem 0; }
li:first-child { border-top: 0; padding-top: 0; } li:last-child { padding-bottom: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; } dd { margin: 0; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>enclave-host: {word}</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{style}</style></head>
<body><main>
<header><h1>enclave-host <span class="soft">{version}</span></h1>
<p class="state {tone}">{state}</p></header>
<section><h2>Vaults</h2><ul>{vaults}</ul></section>
<section><h2>Keys</h2><ul>{keys}</ul>{more}</section>
<section><h2>Attestation</h2><p>{attestation}</p></section>
<section><h2>Routes of this address</h2><dl>{endpoints}</dl></section>
</main></body></html>
"""


def landing_page(now: State) -> Work[bytes]:
    """Return the page."""
    hidden = now["keys_total"] - len(now["keys"])
    keys = []
    for key in now["keys"]:
        yield None
        keys.append(_key(key))
    return _PAGE.format(
        style=_STYLE,
        word="ready" if now["ready"] else "not ready",
        version=escape(now["version"]),
        tone="good" if now["ready"] else "bad",
        state=_whole(now),
        vaults=_items(map(_vault, now["vaults"]), "There is none."),
        keys=_items(keys, "None is listed under <code>tezos</code>."),
        more=f'<p class="soft">and {hidden} more</p>' if hidden else "",
        attestation=escape(now["attestation"]["text"]),
        endpoints="".join(
            f"<dt><a href='{path.removeprefix('/') or '.'}'><code>{path}</code></a></dt><dd class='soft'>{escape(text)}</dd>"
            for path, text in now["endpoints"].items()
        ),
    ).encode()


def _whole(now: State) -> str:
    if not now["ready"]:
        return "Not ready: <a href='healthz'>why</a>"
    return "Ready to sign, degraded: <a href='healthz'>why</a>" if now["degraded"] else "Ready to sign"


def _items(items: Iterable[str], none: str) -> str:
    return "".join(f"<li>{item}</li>" for item in items) or f'<li class="soft">{none}</li>'


def _vault(vault: VaultShown) -> str:
    count, out = vault["keys_ready"], vault["keys_out_of_service"]
    text = f"{count} {'key' if count == 1 else 'keys'} in service{f', {out} out of service' if out else ''}"
    return f"<strong>{escape(vault['name'])}</strong> {_state(vault['reason'], 'ready')}<p class='soft'>{text}</p>"


def _key(key: KeyShown) -> str:
    where = f", vault {escape(key['vault'])}" if key["vault"] is not None else ""
    last = key["last_signature"]
    if last is None:
        signed = "nothing signed since the start"
    else:
        place = "" if last["level"] is None else f" at level {last['level']}, round {last['round']}"
        signed = f"last signed: {escape(last['kind'])}{place}, {last['at'].replace('T', ' ').replace('Z', ' UTC')}"
    return f"<code>{escape(key['pkh'])}</code> {_state(key['reason'], 'in service')}{where}<p class='soft'>{signed}</p>"


def _state(reason: str | None, good: str) -> str:
    return f'<span class="good">{good}</span>' if reason is None else f'<span class="bad">{escape(reason)}</span>'
