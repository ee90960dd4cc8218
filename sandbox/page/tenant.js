// The tenant panel of the page: the users of Entra with their authentication methods, the latest changes, and buttons that
// simulate failures. It reads the tenant through the sandbox's own API instead of Graph, so it shows the actual state.

import { h, add, api, icon } from './dom.js';

const kinds = {
  phoneAuthenticationMethod: (m) => ({
    icon: m.phoneType === 'office' ? 'call' : 'phone',
    name: { mobile: 'Mobile phone', alternateMobile: 'Alternate mobile phone', office: 'Office phone' }[m.phoneType] ?? 'Phone',
    detail: [m.phoneNumber],
  }),
  microsoftAuthenticatorAuthenticationMethod: (m) => ({ icon: 'app', name: 'Microsoft Authenticator', detail: [m.displayName, m.phoneAppVersion && `version ${m.phoneAppVersion}`] }),
  softwareOathAuthenticationMethod: () => ({ icon: 'dots', name: 'Software OATH token', detail: ['code from another app'] }),
  hardwareOathAuthenticationMethod: (m) => ({
    icon: 'token', name: 'Hardware OATH token',
    detail: [[m.device?.manufacturer, m.device?.model].filter(Boolean).join(' '), m.device?.serialNumber && `no. ${m.device.serialNumber}`],
    state: m.device?.status && m.device.status !== 'activated' ? 'deactivated' : '',
  }),
  fido2AuthenticationMethod: (m) => ({ icon: 'key', name: 'Passkey', detail: [m.displayName, m.model] }),
  windowsHelloForBusinessAuthenticationMethod: (m) => ({ icon: 'laptop', name: 'Windows Hello for Business', detail: [m.displayName] }),
  platformCredentialAuthenticationMethod: (m) => ({ icon: 'laptop', name: 'Platform credential', detail: [m.displayName, m.platform] }),
  emailAuthenticationMethod: (m) => ({ icon: 'mail', name: 'Reset e-mail', detail: [m.emailAddress] }),
  externalAuthenticationMethod: (m) => ({ icon: 'link', name: 'External method', detail: [m.displayName] }),
  qrCodePinAuthenticationMethod: () => ({ icon: 'qr', name: 'QR code with PIN', detail: [] }),
  temporaryAccessPassAuthenticationMethod: (m) => ({
    icon: 'ticket', name: 'Temporary Access Pass',
    detail: [m.lifetimeInMinutes && `${m.lifetimeInMinutes} minutes`, m.isUsableOnce ? 'one use' : 'several uses', m.startDateTime && `from ${day(m.startDateTime)}`],
  }),
  passwordAuthenticationMethod: () => ({ icon: 'dots', name: 'Password', detail: [] }),
};

const defaults = {
  push: 'Authenticator notification', oath: 'code from an app or token', sms: 'text message', voiceMobile: 'call to the mobile phone',
  voiceAlternateMobile: 'call to the alternate phone', voiceOffice: 'call to the office phone',
};

export function describe(method) {
  const type = (method.type ?? method['@odata.type'] ?? '').replace('#microsoft.graph.', '');
  return kinds[type]?.(method) ?? { icon: 'dots', name: type || 'Unknown method', detail: [method.displayName] };
}

function day(instant) {
  const at = new Date(instant);
  if (!instant || Number.isNaN(at.getTime()) || at.getFullYear() < 1990) return '';
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString('en-GB', today ? { hour: '2-digit', minute: '2-digit', second: '2-digit' } : { day: 'numeric', month: 'short', year: 'numeric' });
}

// TenantPanel draws into root. It keeps the last list, to detect changes.
export class TenantPanel {
  #root;
  #announce;
  #open;
  #users = null;
  #drawn = new Map(); // object id → signature of the drawn card
  #removed = new Map(); // object id → methods that were removed recently
  #facts = new Map(); // object id → the facts on its card, to highlight changes
  #events = [];
  #list = h('div', { class: 'accounts' });
  #feed;

  // feed is the list of changes; announce announces them to screen readers; open is the object id of the account to show first.
  constructor(root, { feed, announce, open }) {
    this.#root = root;
    this.#feed = feed;
    this.#announce = announce;
    this.#open = open;
    add(this.#root, this.#list);
  }

  // reveal opens one account, closes the others, and scrolls to it.
  reveal(id) {
    this.#open = id;
    for (const card of this.#list.children) card.open = card.dataset.id === id;
    const card = [...this.#list.children].find((c) => c.dataset.id === id);
    card?.scrollIntoView({ block: 'start' });
  }

  show(users) {
    const before = this.#users;
    this.#users = users;
    if (before) {
      for (const user of users) {
        const old = before.find((u) => u.id === user.id);
        if (old) this.#compare(old, user);
      }
    }
    users.forEach((user, index) => this.#draw(user, index));
    for (const card of [...this.#list.children]) if (!users.some((u) => u.id === card.dataset.id)) card.remove();
  }

  #compare(old, now) {
    const changes = [];
    const found = (list, id) => (list ?? []).find((m) => m.id === id);
    (old.methods ?? []).forEach((method, index) => {
      if (found(now.methods, method.id)) return;
      changes.push(['gone', `${describe(method).name} removed`]);
      this.#keepRemoved(now.id, method, old.methods.slice(0, index).map((m) => m.id));
    });
    for (const method of now.methods ?? []) {
      const was = found(old.methods, method.id);
      if (!was) changes.push(['new', `${describe(method).name} added`]);
      else if (JSON.stringify(was) !== JSON.stringify(method)) {
        const state = describe(method).state;
        changes.push(['changed', state ? `${describe(method).name} ${state}` : `${describe(method).name} changed`]);
      }
    }
    if (old.enabled && !now.enabled) changes.push(['gone', 'Sign-in blocked']);
    if (!old.enabled && now.enabled) changes.push(['new', 'Sign-in allowed again']);
    if (old.sessions_valid_from !== now.sessions_valid_from) changes.push(['changed', 'All sessions revoked']);
    if (old.last_password_change !== now.last_password_change) changes.push(['changed', 'Password changed']);
    if (changes.length === 0) return;
    this.#announce(`${now.name}: ${changes.map(([, text]) => text).join(', ')}`);
    for (const [tone, text] of changes) this.#addEvent(tone, now.name, text);
    this.#drawn.delete(now.id);
    this.reveal(now.id);
  }

  #addEvent(tone, name, text) {
    this.#events.unshift({ tone, text, name, at: new Date().toLocaleTimeString('en-GB') });
    this.#events.length = Math.min(this.#events.length, 12);
    this.#feed.replaceChildren(...this.#events.map((n) => h('li', { class: n.tone, title: `${n.name}: ${n.text}` }, h('span', null, h('strong', null, n.name.split(' ')[0]), ' ', n.text), h('time', null, n.at))));
    this.#feed.scrollTop = 0;
  }

  // keepRemoved shows a removed method for nine more seconds, struck through. It stays in its place: after the nearest of the
  // methods that were before it.
  #keepRemoved(id, method, before) {
    const removed = { method, before };
    this.#removed.set(id, [...(this.#removed.get(id) ?? []), removed]);
    setTimeout(() => {
      this.#removed.set(id, (this.#removed.get(id) ?? []).filter((other) => other !== removed));
      this.#drawn.delete(id);
      const user = this.#users.find((u) => u.id === id);
      if (user) this.#draw(user, this.#users.indexOf(user));
    }, 9000);
  }

  #draw(user, index) {
    const signature = JSON.stringify(user);
    let card = [...this.#list.children].find((c) => c.dataset.id === user.id);
    if (card && this.#drawn.get(user.id) === signature) return;
    const before = this.#drawn.has(user.id) || !card ? null : card;
    this.#drawn.set(user.id, signature);
    if (!card) {
      card = h('details', { class: 'account', name: 'account', 'data-id': user.id, testid: `tenant-${user.id}` });
      card.open = user.id === this.#open;
      this.#list.insertBefore(card, this.#list.children[index] ?? null);
    }
    const known = new Map([...(before?.querySelectorAll('[data-method]') ?? [])].map((el) => [el.dataset.method, el.dataset.was]));
    const motion = (m) => (!before ? '' : !known.has(m.id) ? 'new' : known.get(m.id) !== JSON.stringify(m) ? 'changed' : '');
    const rows = (user.methods ?? []).map((m) => ({ id: m.id, row: this.#method(user, m, motion(m)) }));
    for (const { method, before: earlier } of this.#removed.get(user.id) ?? []) {
      const at = Math.max(-1, ...earlier.map((id) => rows.findIndex((r) => r.id === id)));
      rows.splice(at + 1, 0, { id: method.id, row: this.#method(user, method, 'removed') });
    }
    const facts = [
      ['Sign-in', user.enabled ? 'allowed' : 'blocked'],
      ['Work', [user.title, user.department].filter(Boolean).join(', ')],
      ['Roles', (user.roles ?? []).join(', ')],
      ['Eligible for', (user.eligible ?? []).join(', ')],
      ['Groups', (user.groups ?? []).join(', ')],
      ['Sessions valid from', day(user.sessions_valid_from)],
      ['Password changed', day(user.last_password_change)],
      ['Default method', defaults[user.default_method] ?? user.default_method],
    ].filter(([, value]) => value);
    const were = this.#facts.get(user.id);
    this.#facts.set(user.id, new Map(facts));
    const usual = (user.methods ?? []).filter((m) => !/passwordAuthenticationMethod$/.test(m.type ?? ''));
    card.replaceChildren(
      h('summary', null,
        h('span', { class: 'account-name' }, user.name,
          !user.enabled && badge('blocked', 'bad'),
          user.guest && badge('guest', 'warn'),
          user.synced && badge('synced', ''),
          (user.roles ?? []).length > 0 && badge(user.roles.length > 1 ? 'administrator' : user.roles[0], 'warn'),
          (user.eligible ?? []).length > 0 && badge('eligible admin', 'warn')),
        h('span', { class: 'account-count' }, `${usual.length} ${usual.length === 1 ? 'method' : 'methods'}`, icon('down'))),
      h('div', { class: 'account-body' },
        h('p', { class: 'upn' }, user.upn),
        h('dl', null, facts.map(([name, value]) => [h('dt', null, name), h('dd', { class: were && were.get(name) !== value ? 'changed' : null }, value)])),
        h('ul', { class: 'methods' }, rows.map(({ row }) => row)),
        h('div', { class: 'direct-changes' }, h('span', null, 'Change without the bot:'),
          h('button', { type: 'button', class: 'link', testid: `meddle-enabled-${user.id}`, onclick: () => this.#changeDirectly(user, 'PATCH', '', { enabled: !user.enabled }) }, user.enabled ? 'block sign-in' : 'allow sign-in'),
          h('button', { type: 'button', class: 'link', testid: `meddle-register-${user.id}`, onclick: () => this.#changeDirectly(user, 'POST', '/methods', newAuthenticator()) }, 'register an Authenticator'))));
  }

  // changeDirectly changes the tenant as another administrator, or the user, would.
  async #changeDirectly(user, method, path, body) {
    try {
      await api(method, `tenant/users/${user.id}${path}`, body);
    } catch (error) {
      this.#addEvent('gone', user.name, error.message);
    }
  }

  #method(user, method, state) {
    const d = describe(method);
    const gone = state === 'removed';
    const password = d.name === 'Password';
    return h('li', { class: `method ${state} ${d.state ?? ''}`, 'data-method': gone ? null : method.id, 'data-was': gone ? null : JSON.stringify(method), testid: gone ? null : `method-${method.id}` },
      icon(d.icon),
      h('span', { class: 'method-text' },
        h('span', null, h('span', { class: 'method-name' }, d.name), d.state && badge(d.state, 'warn'), gone && badge('removed', 'bad')),
        h('small', null, [...d.detail, password || !method.createdDateTime ? '' : `since ${day(method.createdDateTime)}`].filter(Boolean).join(' · '))),
      !gone && !password && h('button', {
        type: 'button', class: 'link remove', title: 'Remove it in Entra, without the bot', 'aria-label': `Remove ${d.name} of ${user.name}`,
        onclick: () => this.#changeDirectly(user, 'DELETE', `/methods/${encodeURIComponent(method.id)}`),
      }, icon('close')));
  }
}

const badge = (text, tone) => h('span', { class: `badge ${tone}` }, text);
const newAuthenticator = () => ({ type: '#microsoft.graph.microsoftAuthenticatorAuthenticationMethod', displayName: 'Spare phone', phoneAppVersion: '6.2610.6912' });

// FailurePanel simulates failures: each button is one call that a script can make as well.
export class FailurePanel {
  #root;
  #note = h('p', { class: 'failure-note', role: 'status' });
  #faults = h('ul', { class: 'faults', testid: 'faults' });
  #permissions = h('div', { class: 'permissions' });
  #granted = new Set();
  #everGranted = new Set();
  #requests = 0; // number of requests for the state: an older response must not replace a newer one
  #drawn = '';

  constructor(root) {
    this.#root = root;
    const one = (label, hint, act, testid) => h('button', { type: 'button', class: 'failure-button', testid, onclick: () => this.#run(act) }, h('strong', null, label), h('small', null, hint));
    add(this.#root,
      h('p', { class: 'lead' }, 'Simulate failures, and watch how Countersign handles them.'),
      h('div', { class: 'failure-buttons' },
        one('Graph is busy', 'the next 3 calls get 429, Retry-After 2 s', () => fault('entra', { method: '', path: '', times: 3, kind: 'throttle', retry_after: 2 }), 'trouble-throttle'),
        one('Graph is down', 'the next 3 calls get 503', () => fault('entra', { method: '', path: '', times: 3, kind: 'status', status: 503 }), 'trouble-down'),
        one('A reply is lost', 'the next delete succeeds, but its response is lost', () => fault('entra', { method: 'DELETE', path: '', times: 1, kind: 'drop_reply' }), 'trouble-drop'),
        one('Slack hangs up', 'the app’s socket is closed; it has to reconnect', () => api('POST', 'slack/disconnect', { reason: 'refresh_requested' }), 'trouble-disconnect'),
        one('Slack repeats an event', 'the last envelope is delivered again', () => api('POST', 'slack/redeliver', { envelope_id: '' }), 'trouble-redeliver'),
        one('Slack is busy', 'the next 3 posts are rate-limited', () => fault('slack', { method: 'chat.postMessage', times: 3, kind: 'ratelimit', retry_after: 2 }), 'trouble-ratelimit')),
      this.#note, this.#faults,
      h('h3', null, 'Permissions of the app'),
      h('p', { class: 'lead' }, 'Remove one: exactly the commands that need it must fail, and name it.'),
      this.#permissions);
  }

  async #run(act) {
    this.#note.textContent = '';
    try {
      await act();
      this.#note.textContent = 'Done.';
    } catch (error) {
      this.#note.textContent = error.message;
      this.#drawn = ''; // redraws the checkbox in its old state
    }
    await this.refresh().catch((error) => (this.#note.textContent = error.message));
  }

  async refresh() {
    const request = ++this.#requests;
    const state = await Promise.all([api('GET', 'entra/faults'), api('GET', 'slack/faults'), api('GET', 'grant')]);
    // Unchanged elements are not redrawn: replacing an element between mouse down and mouse up would lose the click.
    const drawn = JSON.stringify(state);
    if (request < this.#requests || drawn === this.#drawn) return;
    this.#drawn = drawn;
    const [entra, slack, grant] = state;
    const waiting = [...(entra.faults ?? []).map((f) => ['Graph', f]), ...(slack.faults ?? []).map((f) => ['Slack', f])].filter(([, f]) => f.times !== 0);
    this.#faults.replaceChildren(...waiting.map(([where, f]) => h('li', null, `${where}: ${f.kind.replaceAll('_', ' ')} ${[f.method, f.path].filter(Boolean).join(' ')} × ${f.times > 0 ? f.times : 'any'}`)));
    if (waiting.length) {
      this.#faults.append(h('li', null, h('button', { type: 'button', class: 'link', testid: 'trouble-clear', onclick: () => this.#run(() => Promise.all([api('DELETE', 'entra/faults'), api('DELETE', 'slack/faults')])) }, 'clear them all')));
    }
    this.#granted = new Set(grant.roles ?? []);
    for (const role of this.#granted) this.#everGranted.add(role);
    this.#permissions.replaceChildren(...[...this.#everGranted].sort().map((role) => {
      const tick = h('input', { type: 'checkbox', testid: `grant-${role}`, onchange: () => this.#run(() => this.#toggle(role, tick.checked)) });
      tick.checked = this.#granted.has(role);
      return h('label', { class: 'permission' }, tick, h('span', null, role));
    }));
  }

  #toggle(role, on) {
    const roles = [...this.#everGranted].filter((r) => (r === role ? on : this.#granted.has(r)));
    return api('PUT', 'grant', { roles });
  }
}

// fault adds one fault to the pending ones: a PUT replaces the whole list.
async function fault(side, added) {
  const now = await api('GET', `${side}/faults`);
  await api('PUT', `${side}/faults`, { faults: [...(now.faults ?? []).filter((f) => f.times !== 0), added] });
}
