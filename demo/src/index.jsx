// A small Backstage app: a sign-in page for the sandbox's people, and the LiteLLM plugin, unmodified.

import '@backstage/ui/css/styles.css';
import { createRoot } from 'react-dom/client';
import {
  LiteLLMBudgetWidget,
  LiteLLMHomeWidget,
  litellmPlugin,
} from '@acarmisc/backstage-plugin-litellm';
import { CatalogClient } from '@backstage/catalog-client';
import { ConfigReader } from '@backstage/config';
import { Sidebar, SidebarItem, SidebarSpace } from '@backstage/core-components';
import { createApp } from '@backstage/frontend-defaults';
import {
  ApiBlueprint,
  PageBlueprint,
  createFrontendModule,
  createFrontendPlugin,
  discoveryApiRef,
  fetchApiRef,
} from '@backstage/frontend-plugin-api';
import { NavContentBlueprint, SignInPageBlueprint } from '@backstage/plugin-app-react';
import { catalogApiRef } from '@backstage/plugin-catalog-react';
import HomeIcon from '@mui/icons-material/Home';
import PeopleIcon from '@mui/icons-material/People';
import TrendingUpIcon from '@mui/icons-material/TrendingUp';
import { SignIn, changeUser } from './sign-in.jsx';

const { origin } = window.location;

// The plugin's page has no route ref, without which Backstage's own sidebar does not list it.
function Nav() {
  return (
    <Sidebar>
      <SidebarItem icon={HomeIcon} to="/" text="Home" />
      <SidebarItem icon={TrendingUpIcon} to="/litellm" text="LiteLLM" />
      <SidebarSpace />
      <SidebarItem icon={PeopleIcon} onClick={changeUser} text="Change user" />
    </Sidebar>
  );
}

function Home() {
  const layout = { display: 'grid', gridTemplateColumns: '1fr 1fr', gap: 24, padding: 24, alignItems: 'start' };
  return (
    <main style={layout}>
      <LiteLLMHomeWidget />
      <LiteLLMBudgetWidget />
    </main>
  );
}

const app = createFrontendModule({
  pluginId: 'app',
  extensions: [
    SignInPageBlueprint.make({ params: { loader: async () => SignIn } }),
    NavContentBlueprint.make({ params: { component: Nav } }),
  ],
});

const home = createFrontendPlugin({
  pluginId: 'home',
  extensions: [
    PageBlueprint.make({ params: { path: '/', title: 'Home', loader: async () => <Home /> } }),
  ],
});

// The plugin's dialog of a team looks people up in the catalog.
const catalog = createFrontendPlugin({
  pluginId: 'catalog',
  extensions: [
    ApiBlueprint.make({
      params: define =>
        define({
          api: catalogApiRef,
          deps: { discoveryApi: discoveryApiRef, fetchApi: fetchApiRef },
          factory: deps => new CatalogClient(deps),
        }),
    }),
  ],
});

const config = new ConfigReader({
  app: { title: 'LiteLLM plugin: demo', baseUrl: `${origin}/demo` },
  backend: { baseUrl: origin },
  permission: { enabled: true },
});

const root = createApp({
  features: [app, home, catalog, litellmPlugin],
  advanced: { configLoader: async () => ({ config }) },
}).createRoot();

createRoot(document.getElementById('root')).render(root);
