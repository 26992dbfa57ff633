// A bar for each day, with a part for each model.

import { element } from './api.js';

const WIDTH = 900, HEIGHT = 240, LEFT = 60, BOTTOM = 24, TOP = 10;
const dollars = amount => `$${amount.toFixed(2)}`;

function svg(tag, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Returns a number for the top of an axis that `amount` is below.
function rounded(amount) {
  const power = 10 ** Math.floor(Math.log10(amount || 1));
  return [1, 2, 3, 4, 6, 8, 10].map(n => n * power).find(n => n >= amount);
}

// Returns a chart and its legend. `days` are dates; `usage` is the answer of GET /usage.
export function chart(days, usage) {
  if (!usage.api_requests) return [element('p', {}, `No usage in ${days.length} days.`)];
  const models = Object.keys(usage.usage_by_model).sort();
  const spent = Object.fromEntries(days.map(day => [day, 0]));
  for (const { date, spend } of usage.daily_usage) spent[date] = spend;
  const most = rounded(Math.max(...Object.values(spent)));
  const y = amount => TOP + (HEIGHT - TOP - BOTTOM) * (1 - amount / most);
  const step = (WIDTH - LEFT) / days.length;
  const summary = `${dollars(usage.total_spend)} in ${days.length} days, `
    + `${usage.api_requests.toLocaleString('en')} requests, ${usage.total_tokens.toLocaleString('en')} tokens`;

  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': summary });
  for (const part of [0, 0.5, 1]) {
    const line = y(most * part);
    picture.append(
      svg('line', { x1: LEFT, x2: WIDTH, y1: line, y2: line, class: 'grid' }),
      svg('text', { x: LEFT - 8, y: line + 4, 'text-anchor': 'end' }, dollars(most * part)));
  }
  days.forEach((date, i) => {
    let below = 0;
    for (const { model, spend } of usage.daily_by_model.filter(row => row.date === date)) {
      const top = y(below + spend);
      const bar = svg('rect', {
        x: LEFT + i * step + 2, y: top, width: step - 4, height: y(below) - top,
        class: `series-${models.indexOf(model) % 6}`,
      });
      bar.append(svg('title', {}, `${date}: ${model} ${dollars(spend)}`));
      picture.append(bar);
      below += spend;
    }
    if (i % 5 === 0) {
      picture.append(svg('text', { x: LEFT + (i + 0.5) * step, y: HEIGHT - 6, 'text-anchor': 'middle' }, date.slice(5)));
    }
  });
  const legend = models.map((model, i) => element('span', { class: `legend series-${i % 6}` }, model));
  return [picture, element('figcaption', {}, summary, ...legend)];
}
