"""The style sheet of a report, for light and dark."""

STYLE = """
:root{--ink:#1d2025;--soft:#5d6470;--line:#dfe3e8;--page:#fff;--card:#f6f7f9;--good:#1a6fb5;
--warn:#b35a00}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#a2a9b4;--line:#343a43;
--page:#14171b;--card:#1c2026;--good:#69b3ef;--warn:#ffb457}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.2rem;margin:2.5rem 0 .9rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:0 0 .5rem;overflow-wrap:anywhere}
p{margin:.4rem 0;max-width:46rem}
.source{color:var(--soft);overflow-wrap:anywhere}
.status{border-left:3px solid var(--good);padding-left:.7rem;margin:1rem 0}
.status.warn{border-color:var(--warn)}.status b{color:var(--good)}.status.warn b{color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem}
.tiles div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.25rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.8rem;line-height:1.3;display:block}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));
gap:1.6rem 1.8rem;align-items:start}
.grid>div{min-width:0}
@media(min-width:48rem){.grid>.wide{grid-column-end:span 2}}
figure{margin:0;min-width:0}
figure svg{display:block;width:100%;height:auto;max-width:34rem}
figure svg text{font-family:inherit!important}
figcaption,.note{color:var(--soft);font-size:.85rem;line-height:1.4;margin:.3rem 0 0}
.note{margin:0 0 1rem}section>.grid+.note{margin:1.5rem 0 .5rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.32rem 1.1rem .32rem 0;text-align:left;white-space:nowrap;
border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500;max-width:14rem;overflow:hidden;text-overflow:ellipsis}
.n{text-align:right}td small{color:var(--soft)}
.spot{display:inline-block;width:.75em;height:.75em;border-radius:50%;margin-right:.5em}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.2rem 1.1rem;margin:0;
font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
details{margin:1rem 0}summary{cursor:pointer;font-weight:500;margin-bottom:.5rem}
ul{padding-left:1.2rem}li{overflow-wrap:anywhere;max-width:46rem}
"""
