"""The pages that src.report.page fills in."""

from string import Template

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --accent: #1f5fa8; --bad: #b3341f; }
html { scroll-padding-top: calc(var(--bar, 0px) + 4rem); }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 0 1rem 4rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; }
.wide { overflow-x: auto; margin: .5rem 0; } .pair { display: flex; flex-wrap: wrap; gap: 1rem; }
.curves { display: flex; flex-wrap: wrap; gap: .5rem; } .curves figure { margin: 0; background: white; }
.curves svg { max-width: 100%; height: auto; }
.bar, .filters { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: center; padding: .5rem 0; }
.bar, .filters { position: sticky; top: 0; z-index: 1; background: Canvas; border-bottom: 1px solid var(--line); }
.bar ~ .filters { top: var(--bar, 0); } .bar[hidden] { display: none; }
.bar label { flex: 1; min-width: 0; } .bar div { flex-basis: 100%; }
.bar input { flex: 1; min-width: 0; accent-color: var(--accent); }
label { display: inline-flex; gap: .4rem; align-items: center; }
select, button { font: inherit; padding: .2rem .5rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); gap: .8rem; }
.gallery { margin-top: .8rem; }
.tile { content-visibility: auto; contain-intrinsic-size: auto 12rem; }
.tile { margin: 0; border: 2px solid var(--line); border-radius: 4px; padding: .3rem; }
.tile.wrong { border-color: var(--bad); } .tile.changed { border-style: dashed; } .tile[hidden] { display: none; }
.tile svg { width: 100%; height: auto; display: block; }
.panels { display: grid; grid-template-columns: repeat(var(--columns), 1fr); width: 100%; padding: 0; border: 0; }
.panels { background: none; cursor: zoom-in; } .panels:disabled { cursor: auto; }
path[id^=outline-] { fill: none; stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.dark { stroke: black; stroke-width: 3px; } .bright { stroke: #ffe600; stroke-width: 1.2px; }
figcaption { overflow-wrap: anywhere; font-size: .9rem; padding-top: .2rem; }
html:has(dialog[open]) { overflow: hidden; }
dialog { box-sizing: border-box; width: 100%; height: 100%; max-width: 100%; max-height: 100%; border: 0; padding: 0; }
dialog header { position: sticky; top: 0; left: 0; display: flex; gap: 1rem; align-items: start; padding: .5rem 1rem; }
dialog header { background: Canvas; } dialog h2 { flex: 1; margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.full { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0 1rem 1rem; } .full figure { margin: 0; }
.full svg { display: block; }
@media (max-width: 45rem) { .filters { position: static; } }
"""
_SCRIPT = """
const one = selector => document.querySelector(selector);
const filters = one('.filters'), gallery = one('.gallery'), count = one('#count'), viewer = one('dialog');
const tiles = [...gallery.children], bar = one('.bar');
const orders = {
  wrong: (a, b) => (b.dataset.wrong !== '') - (a.dataset.wrong !== '') || b.dataset.score - a.dataset.score,
  high: (a, b) => b.dataset.score - a.dataset.score,
  low: (a, b) => a.dataset.score - b.dataset.score,
  file: (a, b) => tiles.indexOf(a) - tiles.indexOf(b),
};
const saved = new URLSearchParams(location.hash.slice(1));
let threshold = '';  // of the slider, where that was moved
function show() {
  const chosen = Object.fromEntries(new FormData(filters));
  const fits = t => (!chosen.type || t.dataset.type === chosen.type) &&
    (!chosen.verdict || t.dataset.verdict === chosen.verdict ||
     (chosen.verdict === 'wrong' && t.dataset.wrong !== ''));
  let shown = 0;
  for (const tile of tiles) shown += !(tile.hidden = !fits(tile));
  const sorted = [...tiles].sort(orders[chosen.sort]);
  if (sorted.some((tile, i) => tile !== gallery.children[i])) gallery.append(...sorted);
  count.textContent = shown + ' of ' + tiles.length + ' images';
  history.replaceState(null, '', '#' + new URLSearchParams(threshold ? {...chosen, threshold} : chosen));
}
for (const [name, value] of saved) if (filters.elements[name]) filters.elements[name].value = value;
filters.addEventListener('change', show);
filters.addEventListener('submit', event => event.preventDefault());

// What a step makes of an image. Scores are compared by their ranks, so that the verdicts are those of Python.
function verdictOf(tile, step) {
  const rank = tile.dataset.rank;
  return rank >= step.firstDefective ? 'defective' : rank >= step.firstReview ? 'review' : 'good';
}
function judge(tile, step) {
  const verdict = verdictOf(tile, step), usual = verdictOf(tile, steps[slider.defaultValue]);
  const isGood = tile.dataset.type === 'good';
  const wrong = verdict === 'review' || (verdict === 'good') === isGood ? '' : isGood ? 'false alarm' : 'missed';
  Object.assign(tile.dataset, {verdict, wrong});
  tile.classList.toggle('wrong', wrong !== '');
  tile.classList.toggle('changed', verdict !== usual);
  const before = verdict === usual ? '' : usual + ' at ' + slider.dataset.owner;
  const words = [verdict === 'review' ? 'for review' : 'called ' + verdict, wrong, before].filter(word => word);
  tile.querySelector('span').textContent = words.map(word => ', ' + word).join('');
  return verdict !== usual;
}
const slider = one('#slider'), steps = bar && JSON.parse(one('#steps').textContent);
const cells = document.querySelectorAll('#decision td:not(:first-child)'), heading = one('#decision h3');
const usualHeading = heading?.textContent;
function move() {
  const step = steps[slider.value], isMoved = slider.value !== slider.defaultValue;
  const value = step.threshold + ', ' + (isMoved ? step.times + ' times ' : '') + slider.dataset.owner;
  threshold = isMoved ? step.threshold : '';
  slider.setAttribute('aria-valuetext', value);
  one('#value').textContent = value;
  heading.textContent = isMoved ? 'Threshold set by the slider: ' + step.threshold : usualHeading;
  step.cells.forEach((cell, i) => { cells[i].textContent = cell; });
  const changed = tiles.filter(tile => judge(tile, step)).length;
  one('#rates').textContent = 'recall ' + step.recall + ', false positive rate ' + step.falsePositives +
    (isMoved ? '; ' + changed + (changed === 1 ? ' other verdict' : ' other verdicts') : '');
  const shift = step.place - steps[slider.defaultValue].place;
  one('#line').setAttribute('transform', 'translate(' + shift + ' 0)');
  show();
}
if (bar) {
  const found = steps.findIndex(step => step.threshold === saved.get('threshold'));
  if (found >= 0) slider.value = found;
  slider.addEventListener('input', move);
  bar.addEventListener('submit', event => event.preventDefault());
  one('#reset').addEventListener('click', () => { slider.value = slider.defaultValue; move(); });
  bar.hidden = one('#about').hidden = false;
  new ResizeObserver(() => document.documentElement.style.setProperty('--bar', bar.offsetHeight + 'px')).observe(bar);
  move();
} else show();

function enlarge(tile) {
  viewer.querySelector('h2').textContent = tile.querySelector('figcaption').textContent;
  const panels = [...tile.querySelectorAll('svg')].map(svg => {
    const figure = document.createElement('figure'), name = document.createElement('figcaption');
    name.textContent = svg.getAttribute('aria-label');
    figure.append(svg.cloneNode(true), name);
    return figure;
  });
  viewer.querySelector('.full').replaceChildren(...panels);
  tile.querySelector('button').focus();  // which gets it back
  viewer.showModal();
  viewer.scrollTo(0, 0);
}
for (const tile of tiles) {
  const button = tile.querySelector('button');
  button.disabled = false;
  button.addEventListener('click', () => enlarge(tile));
}
viewer.addEventListener('close', () => {
  if (!viewer.open) viewer.querySelector('.full').replaceChildren();  // it may come after the next one is open
});
"""
# Without the script there is nothing to move.
SLIDER = Template("""<form class=bar hidden autocomplete=off aria-label="another threshold">
<label>Threshold <input type=range id=slider min=0 max=$last step=1 value=$usual data-owner="$owner"></label>
<button type=button id=reset aria-label="reset to $owner">Reset</button>
<div><output id=value></output>: <output id=rates></output></div></form>
<p id=about hidden>With every step of the slider one image more or fewer is defective, or all of one score;
<code>--threshold</code> takes the number beside it. Rates at a threshold that was chosen by these images flatter it.
Outlines and colours stay those of $owner.</p><script type="application/json" id=steps>$steps</script>""")
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
<h2>Verdicts</h2>$slider$decision
<h2>Scores</h2><div class=curves>$histogram</div>
<h2>Curves</h2><div class=curves>$curves</div>
<h2>Defect types</h2>$defects
$training
<h2>Images</h2>
<p>$legend</p>
<form class=filters aria-label="which images, in which order">
<label>Order <select name=sort><option value=wrong>wrong verdicts first</option><option value=high>highest score first
</option><option value=low>lowest score first</option><option value=file>file name</option></select></label>
<label>Type <select name=type><option value="">all</option>$types</select></label>
<label>Verdict <select name=verdict><option value="">all</option>$verdicts
<option value=wrong>wrong</option></select></label>
<output id=count></output></form>
<div class=gallery style="--columns: $columns">
$gallery
</div>
<dialog aria-labelledby=shown><header><h2 id=shown></h2><form method=dialog><button>Close</button></form></header>
<div class=full></div></dialog><script>"""
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
