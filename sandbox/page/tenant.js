// The tenant's side of the page: the people of Entra with their authentication methods, what just changed, and the
// switches that make trouble. It reads the tenant through the sandbox's own API, not through Graph: it shows the truth,
// which the bot has to find out by asking.

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

// TenantPanel draws into root. It keeps the list it drew last, to see what has changed.
export class TenantPanel {
  #root;
  #say;
  #open;
  #users = null;
  #drawn = new Map(); // object id → what its card was drawn from
  #ghosts = new Map(); // object id → methods that went away a moment ago
  #facts = new Map(); // object id → the facts that its card shows, to light up those that change
  #news = [];
  #list = h('div', { class: 'accounts' });
  #feed;

  // feed is the list for the news; say announces them to whoever cannot see it; open is the object id of the account to show at first.
  constructor(root, { feed, say, open }) {
    this.#root = root;
    this.#feed = feed;
    this.#say = say;
    this.#open = open;
    add(this.#root, this.#list);
  }

  // reveal opens one account, closes the others, and brings it into view.
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
    const news = [];
    const found = (list, id) => (list ?? []).find((m) => m.id === id);
    (old.methods ?? []).forEach((method, index) => {
      if (found(now.methods, method.id)) return;
      news.push(['gone', `${describe(method).name} removed`]);
      this.#haunt(now.id, method, old.methods.slice(0, index).map((m) => m.id));
    });
    for (const method of now.methods ?? []) {
      const was = found(old.methods, method.id);
      if (!was) news.push(['new', `${describe(method).name} added`]);
      else if (JSON.stringify(was) !== JSON.stringify(method)) {
        const state = describe(method).state;
        news.push(['changed', state ? `${describe(method).name} ${state}` : `${describe(method).name} changed`]);
      }
    }
    if (old.enabled && !now.enabled) news.push(['gone', 'Sign-in blocked']);
    if (!old.enabled && now.enabled) news.push(['new', 'Sign-in allowed again']);
    if (old.sessions_valid_from !== now.sessions_valid_from) news.push(['changed', 'All sessions revoked']);
    if (old.last_password_change !== now.last_password_change) news.push(['changed', 'Password changed']);
    if (news.length === 0) return;
    this.#say(`${now.name}: ${news.map(([, text]) => text).join(', ')}`);
    for (const [tone, text] of news) this.#tell(tone, now.name, text);
    this.#drawn.delete(now.id);
    this.reveal(now.id);
  }

  #tell(tone, name, text) {
    this.#news.unshift({ tone, text, name, at: new Date().toLocaleTimeString('en-GB') });
    this.#news.length = Math.min(this.#news.length, 12);
    this.#feed.replaceChildren(...this.#news.map((n) => h('li', { class: n.tone, title: `${n.name}: ${n.text}` }, h('span', null, h('strong', null, n.name.split(' ')[0]), ' ', n.text), h('time', null, n.at))));
    this.#feed.scrollTop = 0;
  }

  // haunt keeps a method that went away on screen, struck through, until somebody had the time to see it go. It stays where it was:
  // after the nearest of the methods that stood before it.
  #haunt(id, method, before) {
    const ghost = { method, before };
    this.#ghosts.set(id, [...(this.#ghosts.get(id) ?? []), ghost]);
    setTimeout(() => {
      this.#ghosts.set(id, (this.#ghosts.get(id) ?? []).filter((other) => other !== ghost));
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
    for (const { method, before: earlier } of this.#ghosts.get(user.id) ?? []) {
      const at = Math.max(-1, ...earlier.map((id) => rows.findIndex((r) => r.id === id)));
      rows.splice(at + 1, 0, { id: method.id, row: this.#method(user, method, 'ghost') });
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
        h('div', { class: 'meddle' }, h('span', null, 'Behind the bot’s back:'),
          h('button', { type: 'button', class: 'link', testid: `meddle-enabled-${user.id}`, onclick: () => this.#meddle(user, 'PATCH', '', { enabled: !user.enabled }) }, user.enabled ? 'block sign-in' : 'allow sign-in'),
          h('button', { type: 'button', class: 'link', testid: `meddle-register-${user.id}`, onclick: () => this.#meddle(user, 'POST', '/methods', newAuthenticator()) }, 'register an Authenticator'))));
  }

  // meddle changes the tenant the way another administrator, or the person, would.
  async #meddle(user, method, path, body) {
    try {
      await api(method, `tenant/users/${user.id}${path}`, body);
    } catch (failure) {
      this.#tell('gone', user.name, failure.message);
    }
  }

  #method(user, method, state) {
    const d = describe(method);
    const gone = state === 'ghost';
    const password = d.name === 'Password';
    return h('li', { class: `method ${state} ${d.state ?? ''}`, 'data-method': gone ? null : method.id, 'data-was': gone ? null : JSON.stringify(method), testid: gone ? null : `method-${method.id}` },
      icon(d.icon),
      h('span', { class: 'method-text' },
        h('span', null, h('span', { class: 'method-name' }, d.name), d.state && badge(d.state, 'warn'), gone && badge('removed', 'bad')),
        h('small', null, [...d.detail, password || !method.createdDateTime ? '' : `since ${day(method.createdDateTime)}`].filter(Boolean).join(' · '))),
      !gone && !password && h('button', {
        type: 'button', class: 'link remove', title: 'Remove it in Entra, behind the bot’s back', 'aria-label': `Remove ${d.name} of ${user.name}`,
        onclick: () => this.#meddle(user, 'DELETE', `/methods/${encodeURIComponent(method.id)}`),
      }, icon('close')));
  }
}

const badge = (text, tone) => h('span', { class: `badge ${tone}` }, text);
const newAuthenticator = () => ({ type: '#microsoft.graph.microsoftAuthenticatorAuthenticationMethod', displayName: 'Spare phone', phoneAppVersion: '6.2610.6912' });

// Trouble is the small panel that breaks things: each switch is one call that a script can make as well.
export class Trouble {
  #root;
  #note = h('p', { class: 'trouble-note', role: 'status' });
  #faults = h('ul', { class: 'faults', testid: 'faults' });
  #permissions = h('div', { class: 'permissions' });
  #granted = new Set();
  #everGranted = new Set();
  #asked = 0; // how often the state was asked for: an older answer does not replace a newer one
  #drawn = '';

  constructor(root) {
    this.#root = root;
    const one = (label, hint, act, testid) => h('button', { type: 'button', class: 'trouble', testid, onclick: () => this.#run(act) }, h('strong', null, label), h('small', null, hint));
    add(this.#root,
      h('p', { class: 'lead' }, 'Everything that goes wrong in real life, on a button. Watch what Countersign makes of it.'),
      h('div', { class: 'troubles' },
        one('Graph is busy', 'the next 3 calls get 429, Retry-After 2 s', () => fault('entra', { method: '', path: '', times: 3, kind: 'throttle', retry_after: 2 }), 'trouble-throttle'),
        one('Graph is down', 'the next 3 calls get 503', () => fault('entra', { method: '', path: '', times: 3, kind: 'status', status: 503 }), 'trouble-down'),
        one('A reply is lost', 'the next delete happens, but its answer never arrives', () => fault('entra', { method: 'DELETE', path: '', times: 1, kind: 'drop_reply' }), 'trouble-drop'),
        one('Slack hangs up', 'the app’s socket is closed; it must come back', () => api('POST', 'slack/disconnect', { reason: 'refresh_requested' }), 'trouble-disconnect'),
        one('Slack says it twice', 'the last event is delivered again', () => api('POST', 'slack/redeliver', { envelope_id: '' }), 'trouble-redeliver'),
        one('Slack is busy', 'the next 3 posts are rate-limited', () => fault('slack', { method: 'chat.postMessage', times: 3, kind: 'ratelimit', retry_after: 2 }), 'trouble-ratelimit')),
      this.#note, this.#faults,
      h('h3', null, 'Permissions of the app'),
      h('p', { class: 'lead' }, 'Take one away: exactly the commands that need it must fail, and name it.'),
      this.#permissions);
  }

  async #run(act) {
    this.#note.textContent = '';
    try {
      await act();
      this.#note.textContent = 'Done.';
    } catch (failure) {
      this.#note.textContent = failure.message;
      this.#drawn = ''; // a tick that came to nothing is taken back
    }
    await this.refresh().catch((failure) => (this.#note.textContent = failure.message));
  }

  async refresh() {
    const asked = ++this.#asked;
    const state = await Promise.all([api('GET', 'entra/faults'), api('GET', 'slack/faults'), api('GET', 'grant')]);
    // What is unchanged is not drawn again: a click on something that is replaced between mouse down and mouse up is lost.
    const drawn = JSON.stringify(state);
    if (asked < this.#asked || drawn === this.#drawn) return;
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

// fault adds one fault to those that are already waiting: a PUT replaces the whole list.
async function fault(side, added) {
  const now = await api('GET', `${side}/faults`);
  await api('PUT', `${side}/faults`, { faults: [...(now.faults ?? []).filter((f) => f.times !== 0), added] });
}
