"""The style sheet of a report, for light and dark, and for print."""

from __future__ import annotations

_LIGHT = (
    "--ink:#1d2025;--soft:#5d6470;--line:#dfe3e8;--page:#fff;--card:#f6f7f9;--good:#1a6fb5;"
    "--warn:#b35a00;--up:#1a6fb5;--down:#b35a00;color-scheme:light"
)
_DARK = (
    "--ink:#e6e8eb;--soft:#a2a9b4;--line:#343a43;--page:#14171b;--card:#1c2026;--good:#69b3ef;"
    "--warn:#ffb457;--up:#69b3ef;--down:#ffb457;color-scheme:dark"
)

STYLE = (
    f"""
:root{{{_LIGHT}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
@media screen{{:root[data-theme=light]{{{_LIGHT}}}:root[data-theme=dark]{{{_DARK}}}}}
"""
    + """
*{box-sizing:border-box}
html{scroll-padding-top:4rem}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
header,section,.bar{max-width:104rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}main{padding-bottom:3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.2rem;margin:2.5rem 0 .9rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:0 0 .5rem;overflow-wrap:anywhere}
p{margin:.4rem 0;max-width:46rem}
button{font:inherit;color:inherit;background:none;border:0;padding:0}
button:focus-visible,svg:focus-visible,summary:focus-visible{outline:2px solid var(--good);
outline-offset:2px;border-radius:3px}
.source{color:var(--soft);overflow-wrap:anywhere}
.status{border-left:3px solid var(--good);padding-left:.7rem;margin:1rem 0}
.status.warn{border-color:var(--warn)}.status b{color:var(--good)}.status.warn b{color:var(--warn)}
.front{display:grid;gap:1rem 2.5rem;margin-top:1rem}
.front>div{min-width:0}
@media(min-width:64rem){.front{grid-template-columns:minmax(0,5fr) minmax(0,4fr)}}
.told{margin:0;padding:0;list-style:none;font-size:1.06rem}
.told li{margin:0 0 .6rem;max-width:52rem;overflow-wrap:anywhere}
.told li:first-child{font-size:1.2rem;line-height:1.4}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem}
.tiles div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.25rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.8rem;line-height:1.3;display:block}
.bar{position:sticky;top:0;z-index:2;display:flex;gap:.8rem;align-items:center;
padding-top:.5rem;padding-bottom:.5rem;margin-top:1rem;background:var(--page);
box-shadow:0 1px 0 var(--line)}
.chips{display:flex;gap:.3rem;overflow-x:auto;flex:1;min-width:0;scrollbar-width:thin;padding:3px}
.chip{display:flex;align-items:center;border:1px solid var(--line);border-radius:1rem;
padding:.1rem .6rem;font-size:.88rem;white-space:nowrap;font-variant-numeric:tabular-nums}
.chip small{color:var(--soft);margin-left:.4em}
.chip[aria-pressed=true]{border-color:var(--ink);background:var(--card);font-weight:600}
.tool{display:none;font-size:.78rem;color:var(--soft);white-space:nowrap}
.tool{font-weight:400}
.js .tool{display:inline-block;border:1px solid var(--line);border-radius:.3rem;
padding:.05rem .45rem;cursor:pointer}
.js .chip{cursor:pointer}.tool:hover,.js .chip:hover{border-color:var(--soft);color:var(--ink)}
#said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.dim{opacity:.12}tr.dim{opacity:.35}
.js figure svg [data-component]{cursor:pointer}
.here{filter:brightness(1.15) drop-shadow(0 0 1px var(--ink))}
.tip{position:fixed;z-index:9;max-width:min(26rem,92vw);background:var(--ink);color:var(--page);
font-size:.82rem;line-height:1.35;padding:.25rem .5rem;border-radius:.3rem;pointer-events:none;
overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));
gap:1.6rem 1.8rem;align-items:start}
.grid>div{min-width:0}
@media(min-width:48rem){.grid>.wide{grid-column-end:span 2}}
figure{margin:0;min-width:0}
figure h3,.large h3{display:flex;gap:.6rem;align-items:start;justify-content:space-between}
figure svg{display:block;width:100%;height:auto;max-width:34rem}
figure.wide svg{max-width:70rem}
svg{stroke-linejoin:round}
svg text{font-family:inherit!important}
figcaption,.note{color:var(--soft);font-size:.85rem;line-height:1.4;margin:.3rem 0 0}
.note{margin:0 0 1rem}dl+.note{margin-top:1rem}section>.grid+.note{margin:1.5rem 0 .5rem}
.large{width:min(96vw,calc(92vh*1.38));border:0;border-radius:.5rem;background:var(--page);
color:var(--ink);padding:1rem;max-width:none;max-height:96vh}
.large::backdrop{background:rgba(0,0,0,.6)}.large svg{display:block;width:100%;height:auto}
.large .tool{float:right}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.32rem 1.1rem .32rem 0;text-align:left;white-space:nowrap;
border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500;max-width:14rem;overflow:hidden;text-overflow:ellipsis}
.sort{cursor:pointer;max-width:100%;overflow:hidden;text-overflow:ellipsis}
.sort:hover{color:var(--ink)}
th[aria-sort=ascending] .sort::after{content:" \\2191"}
th[aria-sort=descending] .sort::after{content:" \\2193"}
.n{text-align:right}td small{color:var(--soft)}
td.wrap{white-space:normal;min-width:14rem}
.get{margin:.4rem 0 0}
.spot{width:.75em;height:.75em;margin-right:.5em;flex:none}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem;min-width:0}
.card table{width:100%}.card td{border:0;padding:.2rem .6rem .2rem 0}
.card td:first-child{max-width:11rem;overflow:hidden;text-overflow:ellipsis}
.card td:last-child{padding-right:0}
.card td:nth-child(2){width:45%}.card .effect{width:100%;min-width:3.5rem}
@media(max-width:30rem){.card{padding:.6rem .6rem}.card td{padding-right:.4rem;font-size:.82rem}
.card td:first-child{max-width:7.4rem}.card .effect{min-width:2.2rem}}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem}
.effect{display:inline-block;position:relative;width:8rem;height:.7em;
background:linear-gradient(var(--line),var(--line)) 50%/1px 100% no-repeat}
.effect i{position:absolute;top:0;bottom:0;left:50%;width:calc(50%*var(--size));
background:var(--up);border-radius:0 2px 2px 0}
.effect i.less{left:auto;right:50%;background:var(--down);border-radius:2px 0 0 2px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.2rem 1.1rem;margin:0;
font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
details{margin:1rem 0}summary{cursor:pointer;font-weight:500;margin-bottom:.5rem}
ul{padding-left:1.2rem}li{overflow-wrap:anywhere;max-width:46rem}
@media print{
@page{margin:14mm}
body{font-size:10pt}
header,section,.bar{max-width:none;padding-left:0;padding-right:0}
.bar{position:static;box-shadow:none}.chips{flex-wrap:wrap;overflow:visible}
.tool,.get,.tip,.tool{font-weight:400}.js .tool{display:none}
.front{grid-template-columns:1fr}
figure,.card,.tiles div,tr{break-inside:avoid}h2,h3,summary{break-after:avoid}
.grid,.cards{grid-template-columns:1fr 1fr}
.scroll{overflow:visible}table{font-size:7.5pt}.scroll table{font-size:6.5pt}
td small{display:block}td,th{padding-right:.5rem}.n{padding-right:.4rem}
th{max-width:none;white-space:normal;overflow-wrap:anywhere;hyphens:auto}
td.wrap{white-space:normal}
thead{display:table-header-group}.effect{width:4rem}
details::details-content{content-visibility:visible;block-size:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
@media(prefers-reduced-motion:no-preference){[data-component]{transition:opacity .12s}}
"""
)
