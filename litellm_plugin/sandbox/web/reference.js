// The OpenAPI document of the service, for reading.

import { element, send } from './api.js';

const api = await (await send('bob', 'GET', '/openapi.json')).json();
const main = document.querySelector('main');

// Returns what a "$ref" stands for.
function resolved(node) {
  while (node?.$ref) node = node.$ref.slice(2).split('/').reduce((at, name) => at[name], api);
  return node ?? {};
}

// Returns the elements of a text with paragraphs, lists and `code`.
function prose(text = '') {
  const inline = line => line.split('`').map((part, i) => (i % 2 ? element('code', {}, part) : part));
  return text.trim().split(/\n\n/).filter(Boolean).map(block => {
    if (!block.startsWith('- ')) return element('p', {}, ...inline(block));
    return element('ul', {}, ...block.slice(2).split(/\n- /).map(item => element('li', {}, ...inline(item))));
  });
}

function typeOf(schema) {
  const name = schema.$ref?.split('/').pop();
  const { type, items, enum: values, anyOf, oneOf, const: only } = resolved(schema);
  if (name) return name;
  if (only !== undefined) return JSON.stringify(only);
  if (values) return values.map(value => JSON.stringify(value)).join(' or ');
  if (anyOf || oneOf) return (anyOf ?? oneOf).map(typeOf).join(' or ');
  if (items) return `list of ${typeOf(items)}`;
  return [type ?? 'any'].flat().join(' or ');
}

function table(rows) {
  return element('table', {}, ...rows.map(([name, type, about]) =>
    element('tr', {}, element('td', {}, element('code', {}, name)), element('td', {}, type), element('td', {}, ...prose(about)))));
}

// Returns a heading and the fields of a JSON body, for each schema that it may have.
function body(content, heading) {
  const schema = content?.['application/json']?.schema;
  if (!schema) return [];
  const { properties = {}, required = [], items } = resolved(schema);
  const fields = Object.keys(properties).length ? { properties, required } : { properties: {}, required: [], ...resolved(items) };
  const rows = Object.entries(fields.properties ?? {}).map(([name, field]) =>
    [name + (fields.required?.includes(name) ? ' *' : ''), typeOf(field), resolved(field).description]);
  return [element('h4', {}, `${heading}: ${typeOf(schema)}`), ...(rows.length ? [table(rows)] : [])];
}

function operation(method, path, { summary, description, parameters = [], requestBody, responses }) {
  const answers = Object.entries(responses).sort(([a], [b]) => (a < b ? -1 : 1));
  const success = answers.find(([status]) => status.startsWith('2'));
  const asked = parameters.map(resolved);
  const statuses = {}; // by the description that they share
  for (const [status, answer] of answers) (statuses[resolved(answer).description] ??= []).push(status);
  return element('details', {},
    element('summary', {}, element('code', {}, `${method.toUpperCase()} ${path}`), ` ${summary}`),
    ...prose(description),
    ...(asked.length ? [element('h4', {}, 'Parameters')] : []),
    table(asked.map(p => [p.name + (p.required ? ' *' : ''), `${typeOf(p.schema)}, in the ${p.in}`, p.description])),
    ...body(resolved(requestBody).content, 'JSON body'),
    ...(success ? body(resolved(success[1]).content, `Answer ${success[0]}`) : []),
    element('h4', {}, 'Answers'),
    table(Object.entries(statuses).map(([about, shared]) => [shared.join(', '), '', about])));
}

main.append(...prose(api.info.description));
const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, about]) => ({ method, path, about })));
for (const { name, description } of api.tags) {
  main.append(element('h2', {}, name), ...prose(description));
  main.append(...operations.filter(one => one.about.tags.includes(name))
    .map(({ method, path, about }) => operation(method, path, about)));
}
