"""Style of the page: system fonts, one column, pictures on white plates in both light and dark.

Below 640 pixels rows of tables become blocks, terms of lists stand above what they mean, and panels of pictures below
each other, so that nothing has to be scrolled sideways.
"""

CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --line: #dfe2e6; --ground: #fbfbfa; --plate: #fff;
        --remark: #fdf5e6; --link: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e3; --soft: #a2a8b0; --line: #3a3e44; --ground: #1b1d20; --plate: #fff; --remark: #2e2a20;
          --link: #6db6e8 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
       overflow-wrap: anywhere }
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
dd { margin: 0; min-width: 0 }
dfn { font-style: normal; font-weight: 600 }
dd ul { margin: 0; padding-left: 1.1rem }
table { border-collapse: collapse; width: 100%; font-size: .95rem }
th { font-weight: 600; color: var(--soft); font-size: .85rem }
table.figures td:nth-child(2) { font-variant-numeric: tabular-nums; font-weight: 600 }
table.figures td:nth-child(3) { color: var(--soft); font-size: .9rem }
table.figures code { display: block; color: var(--soft) }
table.scalars td { font-variant-numeric: tabular-nums }
figure { margin: 1rem 0 1.6rem }
.plate { background: var(--plate); border: 1px solid var(--line); border-radius: 6px; padding: .6rem 0;
         display: flex; flex-wrap: wrap; justify-content: center; align-items: flex-start }
.plate + .plate { margin-top: .5rem }
.plate img { max-width: 100%; height: auto; display: block }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; max-width: 52rem }
.remark { background: var(--remark); border-radius: 6px; padding: .5rem .8rem; font-size: .95rem }
pre { background: color-mix(in srgb, var(--ink) 6%, transparent); border-radius: 6px; padding: .7rem .9rem;
      white-space: pre-wrap; overflow-wrap: anywhere }
code, pre { font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }
@media (min-width: 641px) {
  th, td { text-align: left; vertical-align: top; padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line) }
  table.figures td:first-child { width: 25% }
  table.figures td:nth-child(2) { width: 24% }
  table.scalars :is(th, td):not(:first-child) { text-align: right; padding: .45rem 0 .45rem .6rem }
}
@media (max-width: 640px) {
  main { padding: 1.5rem 1rem 3rem }
  dl, .reflow, .reflow tbody { display: block }
  dd + dt { margin-top: .6rem }
  .plate img { flex-grow: 1 }
  .reflow thead { display: none }
  .reflow tr { display: grid; gap: .1rem .8rem; padding: .6rem 0; border-bottom: 1px solid var(--line) }
  .reflow td { padding: 0; min-width: 0 }
  table.figures tr { grid-template-columns: 1fr auto }
  table.figures td:nth-child(2) { text-align: right }
  table.figures td:nth-child(3) { grid-column: 1 / -1 }
  table.scalars tr { grid-template-columns: repeat(3, 1fr) }
  table.scalars td:first-child { grid-column: 1 / -1; font-weight: 600 }
  table.scalars td:not(:first-child)::before { content: attr(data-column); display: block; color: var(--soft);
                                                font-size: .8rem }
}
"""
