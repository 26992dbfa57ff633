// The sign-in page: a visitor chooses one of the sandbox's people.

import { useEffect, useState } from 'react';
import { ProxiedSignInPage } from '@backstage/core-components';

const CHOSEN = 'litellm-demo-user'; // per tab, so that two tabs can be two people

export function changeUser() {
  window.sessionStorage.removeItem(CHOSEN);
  window.location.assign('/demo/');
}

export function SignIn(props) {
  const [people, setPeople] = useState([]);
  const [chosen, setChosen] = useState(window.sessionStorage.getItem(CHOSEN));
  useEffect(() => {
    fetch('/sandbox/data.json').then(answer => answer.json()).then(data => setPeople(data.people));
  }, []);
  if (chosen) {
    return <ProxiedSignInPage {...props} provider="sandbox" headers={{ 'x-sandbox-user': chosen }} />;
  }
  const choose = ref => {
    window.sessionStorage.setItem(CHOSEN, ref);
    setChosen(ref);
  };
  return (
    <main style={{ maxWidth: 640, margin: '10vh auto', padding: 24, font: '16px/1.5 system-ui, sans-serif' }}>
      <h1>Who are you?</h1>
      <p>Sign in as one of these people. There is no password, and all data is made up.</p>
      {people.map(({ ref, name, displayName, about }) => (
        <button
          key={ref}
          onClick={() => choose(ref)}
          style={{ display: 'block', width: '100%', margin: '12px 0', padding: 16, font: 'inherit', textAlign: 'left', cursor: 'pointer' }}
        >
          <strong>{name}</strong> {displayName}<br />{about}
        </button>
      ))}
      <p><a href="/" style={{ textDecoration: 'underline' }}>Back to the sandbox</a></p>
    </main>
  );
}
