// Requests to the service, as one of the sandbox's people.

const MOUNT = '/api/litellm';
const tokens = {}; // promises, by name

// Backstage signs a visitor in as the person whom the header names.
async function signIn(name) {
  const headers = { 'x-sandbox-user': `user:default/${name}` };
  const answer = await fetch('/api/auth/sandbox/refresh', { headers });
  return (await answer.json()).backstageIdentity.token;
}

// Returns the service's answer, a Response. `body` is JSON text; '' for none.
export async function send(name, method, path, body = '') {
  const token = await (tokens[name] ??= signIn(name));
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  return fetch(MOUNT + path, { method, headers, body: body || undefined });
}

// Returns a new element; children are elements or text.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
