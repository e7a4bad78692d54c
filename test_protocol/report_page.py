"""The HTML template of a report: one page, styles inside, images as data URIs, readable on a phone."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} – facelab report</title>
<style>
:root { color-scheme: light; --ink: #1d2329; --faint: #5b6671; --line: #d9dee3; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; color: var(--faint); }
.faint { color: var(--faint); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
.number { text-align: right; white-space: nowrap; }
.best { font-weight: 700; color: var(--accent); }
.reference { color: var(--faint); font-style: italic; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.plots.wide { grid-template-columns: minmax(0, 1fr); }
figure { margin: 0; }
img { max-width: 100%; height: auto; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; background: #f5f7f9; padding: .8rem; font-size: .8125rem; line-height: 1.4; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="faint">facelab {{ version }}. Fractions are in percent. A <i>reference</i> number follows a published
evaluator with its quirks; the others follow the clean definition.</p>
{% if protocols %}
<div class="scroll"><table>
<tr>{% for column in comparison.columns %}<th{% if not loop.first %} class="number"{% endif %}>{{ column }}</th>
{% endfor %}</tr>
{% for row in comparison.rows %}
{% set number = loop.index0 %}
<tr>{% for cell in row %}<td class="{{ '' if loop.first else 'number' }}
{{- ' best' if (number, loop.index0) in comparison.best }}">{{ cell }}</td>
{% endfor %}</tr>
{% endfor %}
</table></div>
{% else %}
<p>No protocol was run.</p>
{% endif %}
{% if pictures.get("") %}
<h2>Training</h2>
<div class="plots wide">
{% for picture in pictures[""] %}
<figure><img src="{{ picture.uri }}" alt="{{ picture.title }}"></figure>
{% endfor %}
</div>
{% endif %}
{% for protocol, models in protocols.items() %}
<h2>{{ protocol }}</h2>
<div class="plots">
{% for picture in pictures.get(protocol, []) %}
<figure><img src="{{ picture.uri }}" alt="{{ picture.title }}"></figure>
{% endfor %}
</div>
{% for model, report in models.items() %}
<h3>{{ model }}</h3>
<div class="scroll"><table>
<tr><th>metric</th><th class="number">value</th><th>kind</th><th>note</th></tr>
{% for metric in report.metrics %}
<tr class="{{ metric.kind }}"><td>{{ metric.name }}{{ metric | unit }}</td>
<td class="number">{{ metric | metric }}</td><td>{{ metric.kind }}</td><td class="faint">{{ metric.note }}</td></tr>
{% endfor %}
</table></div>
<details><summary>What the numbers depend on</summary><div class="scroll"><table>
{% for name, value in report.options.items() %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table></div></details>
{% endfor %}
{% endfor %}
{% if texts %}
<h2>How it was made</h2>
{% for name, text in texts.items() %}
<details><summary>{{ name }}</summary><pre>{{ text }}</pre></details>
{% endfor %}
{% endif %}
</body>
</html>
"""
