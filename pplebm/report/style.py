"""How the page looks: system fonts, one column, pictures on white plates in both light and dark."""

CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --line: #dfe2e6; --ground: #fbfbfa; --plate: #fff;
        --remark: #fdf5e6; --link: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e3; --soft: #a2a8b0; --line: #3a3e44; --ground: #1b1d20; --plate: #fff; --remark: #2e2a20;
          --link: #6db6e8 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 1000px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem }
h3 small, .soft { color: var(--soft); font-weight: normal }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
nav { margin-top: 1.4rem; font-size: .95rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 1.2rem 0; font-size: .95rem }
dt { color: var(--soft) }
dd { margin: 0 }
dd ul { margin: 0; padding-left: 1.1rem }
table { border-collapse: collapse; width: 100%; font-size: .95rem }
th, td { text-align: left; vertical-align: top; padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft); font-size: .85rem }
td:first-child { width: 25% }
td:nth-child(2) { font-variant-numeric: tabular-nums; width: 24%; font-weight: 600 }
td:nth-child(3) { color: var(--soft); font-size: .9rem }
figure { margin: 1rem 0 1.6rem }
.plate { background: var(--plate); border: 1px solid var(--line); border-radius: 6px; padding: .6rem }
.plate img { max-width: 100%; height: auto; display: block; margin: 0 auto }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; max-width: 52rem }
.remark { background: var(--remark); border-radius: 6px; padding: .5rem .8rem; font-size: .95rem }
pre { background: color-mix(in srgb, var(--ink) 6%, transparent); border-radius: 6px; padding: .7rem .9rem;
      white-space: pre-wrap; overflow-wrap: anywhere }
code, pre { font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }
"""
