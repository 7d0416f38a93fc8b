"""The pages that src.report.page fills in."""

from string import Template

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --accent: #1f5fa8; --bad: #b3341f; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 0 1rem 4rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; }
.wide { overflow-x: auto; margin: .5rem 0; } .pair { display: flex; flex-wrap: wrap; gap: 1rem; }
.curves { display: flex; flex-wrap: wrap; gap: .5rem; } .curves figure { margin: 0; background: white; }
.curves svg { max-width: 100%; height: auto; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; padding: .5rem 0; }
form { position: sticky; top: 0; background: Canvas; }
label { display: inline-flex; gap: .4rem; align-items: center; } select { font: inherit; padding: .2rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); gap: .8rem; }
.tile { margin: 0; border: 2px solid var(--line); border-radius: 4px; padding: .3rem; }
.tile img { width: 100%; height: auto; display: block; } .tile.wrong { border-color: var(--bad); }
.tile[hidden] { display: none; } .tile:focus-visible { outline: 3px solid var(--accent); }
figcaption { overflow-wrap: anywhere; font-size: .9rem; padding-top: .2rem; }
"""
_SCRIPT = """
const form = document.querySelector('form'), gallery = document.querySelector('.gallery');
const tiles = [...gallery.children], count = document.querySelector('#count');
const orders = {
  wrong: (a, b) => (b.dataset.wrong !== '') - (a.dataset.wrong !== '') || b.dataset.score - a.dataset.score,
  high: (a, b) => b.dataset.score - a.dataset.score,
  low: (a, b) => a.dataset.score - b.dataset.score,
  file: (a, b) => tiles.indexOf(a) - tiles.indexOf(b),
};
function show() {
  const chosen = Object.fromEntries(new FormData(form));
  const fits = t => (!chosen.type || t.dataset.type === chosen.type) &&
    (!chosen.verdict || t.dataset.verdict === chosen.verdict ||
     (chosen.verdict === 'wrong' && t.dataset.wrong !== ''));
  let shown = 0;
  for (const tile of tiles) shown += !(tile.hidden = !fits(tile));
  gallery.append(...[...tiles].sort(orders[chosen.sort]));
  count.textContent = shown + ' of ' + tiles.length + ' images';
  history.replaceState(null, '', '#' + new URLSearchParams(chosen));
}
for (const [name, value] of new URLSearchParams(location.hash.slice(1)))
  if (form.elements[name]) form.elements[name].value = value;
form.addEventListener('change', show);
form.addEventListener('submit', event => event.preventDefault());
show();
"""
_HEAD = (
    "<!doctype html><html lang=en><head><meta charset=utf-8>"
    "<meta name=viewport content='width=device-width, initial-scale=1'>"
)
PAGE = Template(
    _HEAD
    + "<title>$title</title><style>"
    + _STYLE
    + """</style></head><body>
<h1>$title</h1><p>$facts</p>
<h2>Metrics</h2>$metrics
<h2>Verdicts</h2>$decision
<h2>Scores</h2><div class=curves>$histogram</div>
<h2>Curves</h2><div class=curves>$curves</div>
<h2>Defect types</h2>$defects
$training
<h2>Images</h2>
<p>Each: image, mask, anomaly map, outline of what reaches 1. $legend.</p>
<form aria-label="which images, in which order">
<label>Order <select name=sort><option value=wrong>wrong verdicts first</option><option value=high>highest score first
</option><option value=low>lowest score first</option><option value=file>file name</option></select></label>
<label>Type <select name=type><option value="">all</option>$types</select></label>
<label>Verdict <select name=verdict><option value="">all</option><option>good</option><option>defective</option>
<option value=wrong>wrong</option></select></label>
<output id=count></output></form>
<div class=gallery>
$gallery
</div><script>"""
    + _SCRIPT.replace("$", "$$")
    + "</script></body></html>\n"
)
INDEX_PAGE = Template(
    _HEAD
    + "<title>STPM: all categories</title><style>"
    + _STYLE
    + """</style></head><body><h1>STPM: all categories</h1><div class=wide><table><thead><tr>
<th scope=col>category</th><th scope=col>pixel AUROC</th><th scope=col>image AUROC</th><th scope=col>PRO</th>
<th scope=col>recall (95 % interval)</th><th scope=col>false positive rate (95 % interval)</th></tr></thead><tbody>
$rows
</tbody></table></div></body></html>
"""
)
