// The sandbox's page: its people, requests to try, and a chart of a month's usage.

import { element, send } from './api.js';
import { chart } from './chart.js';

const DAYS = 30;
const find = selector => document.querySelector(selector);
const data = await (await fetch('/sandbox/data.json')).json();

find(data.demo ? '#demo' : '#no-demo').hidden = false;

for (const { name, displayName, groups, about } of data.people) {
  find('#people').append(element('tr', {},
    element('td', {}, element('strong', {}, name), ` ${displayName}`),
    element('td', {}, groups.map(ref => ref.split('/')[1]).join(', ')),
    element('td', {}, about)));
  for (const select of ['[name=who]', '#usage-of']) find(select).append(element('option', {}, name));
}

for (const { file, title } of data.docs) {
  find('#docs ul').append(element('li', {}, element('a', { href: `/docs/${file}` }, title)));
}
if (!data.docs.length) find('#docs').append('In docs/ of the source code.');

// -- requests -----------------------------------------------------------------

const form = find('#request');

for (const { what, who, path, body } of data.examples) {
  const button = element('button', {}, what);
  button.addEventListener('click', () => {
    form.elements.who.value = who;
    form.elements.method.value = body ? 'POST' : 'GET';
    form.elements.path.value = path;
    form.elements.body.value = body ? JSON.stringify(body) : '';
    form.requestSubmit();
  });
  find('#examples').append(button);
}

form.addEventListener('submit', async event => {
  event.preventDefault();
  const { who, method, body, ...given } = Object.fromEntries(new FormData(form));
  const path = `/${given.path.replace(/^\/+/, '')}`;
  let status, text;
  try {
    const answer = await send(who, method, path, method === 'GET' ? '' : body);
    status = `${method} ${path} as ${who}: ${answer.status} ${answer.statusText}`;
    text = await answer.text();
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch (error) {
    // The answer is no JSON and shown as it is, or there is none.
    status ??= `${method} ${path} as ${who}: no answer`;
    text ||= `${error.message}. Does the sandbox still run?`;
  }
  find('#answer strong').textContent = status;
  find('#answer pre').textContent = text;
  find('#answer').hidden = false;
});

// -- usage --------------------------------------------------------------------

const day = ago => new Date(Date.now() - ago * 86400e3).toISOString().slice(0, 10);

async function showUsage(who) {
  const answer = await send(who, 'GET', `/usage?start_date=${day(DAYS - 1)}&end_date=${day(0)}`);
  const usage = await answer.json();
  const shown = answer.ok
    ? chart(Array.from({ length: DAYS }, (_, i) => day(DAYS - 1 - i)), usage)
    : [element('p', {}, `${answer.status}: ${usage.error}`)];
  find('#usage').replaceChildren(...shown);
}

find('#usage-of').addEventListener('change', event => showUsage(event.target.value));
find('#usage-of').value = 'bob';
await showUsage('bob');
