// The page of the sandbox: a chat workspace in which the visitor chooses a person, with the Entra tenant beside it.
//
// It uses only the sandbox's JSON API (documented in package sandbox) and keeps no essential state: after each event of
// /sandbox/stream, it fetches everything that it shows and redraws what has changed.
//
// The URL's fragment is the visible state, so that people and tests can link to any state:
//   #as=U0HANNA&channel=C0HELPDESK   the current person and channel; channel=home is the app's Home tab
//   &account=<object id>             the account that is open in the tenant panel
//   &pane=rail|talk|tenant           the part that a narrow screen shows
//   &compose=<text>                  the text in the message field
//   &tour=off                        hides the tour
//
// For tests, these data-testid attributes are stable:
//   person-<user id>       the button that switches to this person
//   channel-<channel id>   opens a channel or direct message; channel-home opens the app's Home tab
//   composer, send         the message field and its button; completion-<command or handle> is a suggestion
//   message-<ts>           one message; notice is a message of the page itself (a command that failed)
//   action-<action id>     a button, or the field of an input: <input>, <textarea> or <select>; for radio buttons and
//                          checkboxes the group, whose options are option-<value>; for a searchable select the text
//                          field, whose suggestions are option-<value>
//   modal, modal-submit, modal-close, modal-error, error-<block id>
//   confirm, confirm-ok, confirm-cancel
//   tenant-<object id>, and in it method-<method id> (a phone has the same id in every account), meddle-enabled-<object id>,
//   meddle-register-<object id>; tenant-feed
//   tour, tour-step-<n>, tour-go-<n> (from 1), tour-close
//   trouble, trouble-…, grant-<permission>, faults

import { h, add, api, avatar, botAvatar, icon } from './dom.js';
import { renderBlocks, showErrors, Form } from './blocks.js';
import { mrkdwn, plain } from './text.js';
import { TenantPanel, FailurePanel } from './tenant.js';

const $ = (id) => document.getElementById(id);
const ui = Object.fromEntries(['workspace', 'people', 'channels', 'apps', 'tour', 'talk-head', 'offline', 'scroll', 'log', 'home', 'composer',
  'completion', 'hint', 'message', 'send', 'accounts', 'tenant-feed', 'failures', 'failures-body', 'tenant-name', 'modal', 'confirm', 'announcer'].map((id) => [id, $(id)]));

const state = {
  info: null,
  people: [],
  commands: [],
  as: '',
  channel: '',
  channels: [], // of the current person
  channelsOf: new Map(), // by person, for the unread dots
  messages: [],
  views: { modals: [], home: null },
  notices: new Map(), // "person channel" → messages of the page itself
  actionErrors: new Map(), // message ts → the error of a failed action
  tourDone: new Set(),
};
let tenant;
let failurePanel;

const names = {
  person: (id) => (id === state.info.slack.bot_user_id ? { id, name: state.info.app, handle: state.info.app.toLowerCase() } : state.people.find((p) => p.id === id)),
  channel: (id) => [...state.channelsOf.values()].flat().find((c) => c.id === id),
  people: () => state.people,
  channels: () => state.channels.filter((c) => c.kind !== 'dm'),
};
const isBot = (message) => message.bot || message.user === state.info.slack.bot_user_id;
const announce = (text) => (ui.announcer.textContent = text);

// ---- Read state. A dot means that there are messages which the visitor has not seen as this person. ----

const readKey = () => `read ${state.info.started}`;
let read = null;

function wasRead(as, channel) {
  return read?.[as]?.[channel.id] ?? '0';
}

function markRead(as, id, ts) {
  if (!ts || wasRead(as, { id }) >= ts) return;
  (read[as] ??= {})[id] = ts;
  sessionStorage.setItem(readKey(), JSON.stringify(read));
}

// loadReadState loads the read state of this tab. For a new sandbox, all existing messages count as read.
function loadReadState() {
  if (read) return;
  const kept = sessionStorage.getItem(readKey());
  read = kept ? JSON.parse(kept) : {};
  if (kept) return;
  for (const [as, channels] of state.channelsOf) for (const c of channels) markRead(as, c.id, c.last_ts);
}

const unread = (as, channel) => Boolean(channel.last_ts) && channel.last_ts > wasRead(as, channel);

// ---- The URL fragment. ----

function fragment() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

function navigate(change, { compose } = {}) {
  const next = { as: state.as, channel: state.channel, ...change };
  const current = fragment();
  const params = new URLSearchParams({ as: next.as, channel: next.channel });
  if (current.tour) params.set('tour', current.tour);
  if ('#' + params !== location.hash) history.pushState(null, '', '#' + params);
  if (compose !== undefined) setComposer(compose);
  setPane('talk');
  return applyFragment();
}

// applyFragment sets the state from the fragment.
async function applyFragment() {
  const at = fragment();
  const first = state.info.tour[0] ?? {};
  const as = state.people.some((p) => p.id === at.as) ? at.as : (first.as ?? state.people[0].id);
  const moved = as !== state.as;
  state.as = as;
  if (moved) closeCompletion();
  state.channels = state.channelsOf.get(as) ?? [];
  const wanted = at.channel ?? first.channel;
  const there = wanted === 'home' || state.channels.some((c) => c.id === wanted);
  // If the person is not in the channel, show the person's first private channel, or their own direct message for a direct message.
  const channel = there ? wanted : wanted?.startsWith('D') ? (dm()?.id ?? 'home') : (state.channels.find((c) => c.kind === 'private') ?? state.channels[0])?.id ?? 'home';
  const changed = moved || channel !== state.channel;
  state.channel = channel;
  setPane(at.pane ?? (changed ? 'talk' : document.body.dataset.pane));
  if (at.account) tenant.reveal(at.account);
  if (at.compose !== undefined) setComposer(at.compose);
  if (changed) {
    state.messages = [];
    ui.log.replaceChildren();
    drawn.clear();
    if (channel === 'home') api('POST', 'home', { as }).catch((error) => announce(error.message));
  }
  await refresh();
  if (changed) ui.scroll.scrollTop = channel === 'home' ? 0 : ui.scroll.scrollHeight;
}

function setPane(pane) {
  document.body.dataset.pane = pane;
  for (const button of document.querySelectorAll('#tabs button')) button.setAttribute('aria-pressed', String(button.dataset.go === pane));
}

const dm = () => state.channels.find((c) => c.kind === 'dm' && c.with === state.info.slack.bot_user_id) ?? state.channels.find((c) => c.kind === 'dm');

// ---- Fetching. Only one fetch runs at a time; a change during a fetch causes another one. ----

let running = null;
let again = false;

function refresh() {
  if (running) {
    again = true;
    return running;
  }
  running = (async () => {
    do {
      again = false;
      await fetchState();
    } while (again);
  })().finally(() => (running = null));
  return running;
}

async function fetchState() {
  const { as, channel } = state;
  try {
    const [channelsOf, messages, views, users] = await Promise.all([
      Promise.all(state.people.map(async (p) => [p.id, await api('GET', `channels?as=${p.id}`)])),
      channel && channel !== 'home' ? api('GET', `messages?as=${as}&channel=${channel}`) : [],
      api('GET', `views?as=${as}`),
      api('GET', 'tenant/users'),
    ]);
    if (as !== state.as || channel !== state.channel) {
      again = true; // the visitor has navigated during the fetch
      return;
    }
    state.channelsOf = new Map(channelsOf);
    loadReadState();
    state.channels = state.channelsOf.get(as) ?? [];
    state.messages = messages;
    // The values of the fields are already on screen, so a change of them must not redraw the view.
    const withoutState = (view) => view && { ...view, state: undefined };
    state.views = { modals: (views.modals ?? []).map(withoutState), home: withoutState(views.home ?? null) };
    online(true);
    draw();
    tenant.show(users);
    if (ui.failures.open) failurePanel.refresh().catch(() => {});
  } catch (error) {
    online(error instanceof TypeError ? false : true);
    if (!(error instanceof TypeError)) announce(error.message);
    console.warn(error);
  }
}

function online(yes) {
  ui.offline.hidden = yes;
}

function listen() {
  const stream = new EventSource('/sandbox/stream');
  stream.addEventListener('message', refresh);
  stream.addEventListener('error', () => online(false));
  stream.addEventListener('open', async () => {
    online(true);
    // There may be a new sandbox at this address, with other people and messages.
    const info = await api('GET', 'info').catch(() => null);
    if (info && info.started !== state.info.started) location.reload();
  });
}

// ---- Drawing. ----

function draw() {
  const here = state.channels.find((c) => c.id === state.channel);
  if (here && document.visibilityState === 'visible') markRead(state.as, here.id, here.last_ts);
  drawRail();
  drawHead(here);
  const home = state.channel === 'home';
  ui.log.hidden = home;
  ui.composer.hidden = home;
  ui.home.hidden = !home;
  if (home) drawHome();
  else drawLog();
  drawModal();
  const me = names.person(state.as);
  document.title = `${home ? 'Home' : title(here)} · ${me.name} · Countersign sandbox`;
}

const title = (channel) => (!channel ? '' : channel.kind === 'dm' ? state.info.app : `#${channel.name}`);

function drawRail() {
  let anyUnread = false; // another person has unread messages
  updateList(ui.people, state.people.map((p) => {
    const me = p.id === state.as;
    const waiting = !me && (state.channelsOf.get(p.id) ?? []).some((c) => unread(p.id, c));
    const described = state.info.hints?.[p.id] ?? [p.title, p.guest && 'guest', p.deactivated && 'deactivated'].filter(Boolean).join(', ');
    anyUnread ||= waiting;
    return [p.id, JSON.stringify([me, waiting]), () => h('li', null, h('button', {
      type: 'button', class: `row person ${me ? 'here' : ''} ${p.deactivated ? 'away' : ''}`, testid: `person-${p.id}`, 'aria-pressed': String(me),
      title: `Switch to ${p.name}: ${described}`, onclick: () => navigate({ as: p.id }),
    }, avatar(p, 'small'), h('span', { class: 'row-text' }, h('span', null, p.name), h('small', null, described)), waiting && dot()))];
  }));
  const channels = state.channels.filter((c) => c.kind !== 'dm');
  updateList(ui.channels, channels.map((c) => row(c.id, `${c.name}`, c.kind === 'private' ? 'lock' : 'hash', unread(state.as, c), c.shared && 'shared externally')));
  const direct = dm();
  document.body.classList.toggle('unread', anyUnread || state.channels.some((c) => unread(state.as, c)));
  updateList(ui.apps, [
    row('home', 'Home', 'home', false),
    direct && row(direct.id, 'Messages', 'chat', unread(state.as, direct)),
  ].filter(Boolean));
}

function row(id, name, picture, isUnread, note) {
  const here = state.channel === id;
  const inApp = picture === 'home' || picture === 'chat';
  return [id, JSON.stringify([here, isUnread, name]), () => h('li', null, h('button', {
    type: 'button', class: `row ${here ? 'here' : ''} ${isUnread ? 'unread' : ''}`, testid: `channel-${id}`, 'aria-current': here ? 'page' : null,
    onclick: () => navigate({ channel: id }),
  }, icon(picture), h('span', { class: 'row-text' }, h('span', null, inApp ? `${state.info.app} · ${name}` : name), note && h('small', null, note)), isUnread && dot()))];
}

const dot = () => h('span', { class: 'dot' }, h('span', { class: 'hidden' }, 'unread messages'));

// updateList draws a list whose items are [key, signature, build]. It rebuilds only changed items, to keep focus and animations.
function updateList(list, items) {
  const old = new Map([...list.children].map((el) => [el.dataset.key, el]));
  let at = list.firstChild;
  for (const [key, signature, build] of items) {
    let el = old.get(key);
    if (!el || el.dataset.signature !== signature) {
      const fresh = build();
      fresh.dataset.key = key;
      fresh.dataset.signature = signature;
      if (el) {
        const focused = el.contains(document.activeElement);
        if (at === el) at = fresh;
        el.replaceWith(fresh);
        if (focused) fresh.querySelector('button')?.focus();
      } else {
        list.insertBefore(fresh, at);
      }
      el = fresh;
    }
    old.delete(key);
    if (el === at) at = at.nextSibling;
    else list.insertBefore(el, at);
  }
  for (const el of old.values()) el.remove();
}

function drawHead(here) {
  const me = names.person(state.as);
  const members = here && here.kind !== 'dm' ? here.members.map((id) => names.person(id)?.name ?? id) : [];
  const note = state.channel === 'home' ? 'only visible to you'
    : here?.kind === 'dm' ? 'direct messages from the app to you'
      : [here?.kind === 'private' ? 'private' : 'public', here?.shared && 'shared with another workspace', `${members.length} members`].filter(Boolean).join(' · ');
  const signature = JSON.stringify([state.as, state.channel, members]);
  if (ui['talk-head'].dataset.signature === signature) return;
  ui['talk-head'].dataset.signature = signature;
  const app = state.channel === 'home' || here?.kind === 'dm';
  ui['talk-head'].replaceChildren(
    h('div', { class: 'where' },
      h('h1', null, app ? botAvatar('tiny') : icon(here?.kind === 'private' ? 'lock' : 'hash'), state.channel === 'home' ? `${state.info.app} · Home` : here?.kind === 'dm' ? state.info.app : (here?.name ?? '')),
      h('p', { title: members.join(', ') }, note)),
    h('button', { type: 'button', class: 'me', title: 'Switch to another person', onclick: () => setPane('rail') }, avatar(me, 'small'), h('span', null, h('small', null, 'You are'), me.name)));
}

// ---- Messages. ----

const drawn = new Map(); // ts → signature

function drawLog() {
  const atEnd = ui.scroll.scrollHeight - ui.scroll.scrollTop - ui.scroll.clientHeight < 80;
  const fresh = drawn.size === 0;
  const notices = state.notices.get(`${state.as} ${state.channel}`) ?? [];
  let previous = null;
  let lastDay = '';
  const items = [];
  for (const m of state.messages) {
    const date = new Date(Number(m.ts.split('.')[0]) * 1000);
    const day = date.toLocaleDateString('en-GB', { weekday: 'long', day: 'numeric', month: 'long' });
    if (day !== lastDay) items.push([`day ${day}`, '', () => h('div', { class: 'day' }, h('span', null, day === new Date().toLocaleDateString('en-GB', { weekday: 'long', day: 'numeric', month: 'long' }) ? 'Today' : day))]);
    const follows = previous && previous.user === m.user && !previous.ephemeral && !m.ephemeral && !m.blocks?.length && !previous.blocks?.length && day === lastDay;
    lastDay = day;
    previous = m;
    const signature = JSON.stringify([m.text, m.blocks, m.edited, follows, state.actionErrors.get(m.ts)]);
    const was = drawn.get(m.ts);
    drawn.set(m.ts, signature);
    items.push([m.ts, signature, () => drawMessage(m, date, follows, fresh ? '' : was === undefined ? 'arrived' : 'updated')]);
  }
  for (const n of notices) items.push([n.id, n.text, () => drawNotice(n)]);
  if (items.length === 0) {
    const here = state.channels.find((c) => c.id === state.channel);
    items.push(['empty', state.channel, () => h('div', { class: 'empty' }, icon(here?.kind === 'dm' ? 'chat' : here?.kind === 'private' ? 'lock' : 'hash'),
      h('p', null, here?.kind === 'dm' ? `${state.info.app} has not written to you yet.` : `There are no messages in ${title(here)} yet.`),
      h('p', null, 'Type / below to see what the app can do.'))]);
  }
  updateList(ui.log, items);
  if (atEnd || fresh) ui.scroll.scrollTop = ui.scroll.scrollHeight;
}

function clock(date) {
  return h('time', { datetime: date.toISOString(), title: date.toLocaleString('en-GB') }, date.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' }));
}

function drawMessage(m, date, follows, motion) {
  const person = names.person(m.user) ?? { name: m.user, color: '' };
  const bot = isBot(m);
  const failed = state.actionErrors.get(m.ts);
  return h('article', { class: `message ${m.ephemeral ? 'ephemeral' : ''} ${follows ? 'follows' : ''} ${motion}`, testid: `message-${m.ts}` },
    h('div', { class: 'gutter' }, follows ? null : bot ? botAvatar() : avatar(person)),
    h('div', { class: 'message-body' },
      m.ephemeral && h('p', { class: 'only-you' }, icon('eye'), 'Only visible to you'),
      !follows && h('p', { class: 'message-head' }, h('strong', null, bot ? state.info.app : person.name), bot && h('span', { class: 'badge app' }, 'app'), clock(date)),
      m.blocks?.length ? renderBlocks(m.blocks, surface({ ts: m.ts })) : h('div', { class: 'prose' }, mrkdwn(m.text ?? '', names)),
      m.edited && h('span', { class: 'edited' }, '(edited)'),
      failed && h('p', { class: 'press-failed', role: 'alert' }, icon('alert'), failed)));
}

function drawNotice(n) {
  return h('article', { class: 'message ephemeral notice arrived', testid: 'notice' },
    h('div', { class: 'gutter' }, h('span', { class: 'avatar plain' }, icon('info'))),
    h('div', { class: 'message-body' },
      h('p', { class: 'only-you' }, icon('eye'), 'Only visible to you'),
      h('p', { class: 'message-head' }, h('strong', null, 'Workspace'), clock(n.at)),
      h('div', { class: 'prose' }, n.text)));
}

let noticeSerial = 0;
function notice(as, channel, text) {
  const key = `${as} ${channel}`;
  state.notices.set(key, [...(state.notices.get(key) ?? []), { id: `notice ${++noticeSerial}`, text, at: new Date() }]);
  draw();
  ui.scroll.scrollTop = ui.scroll.scrollHeight;
}

// surface returns the context that blocks.js needs for drawing. where is {ts} for a message, {view_id} for a view.
function surface(where, form = null) {
  const at = () => (where.ts ? { as: state.as, channel: state.channel, ts: where.ts } : { as: state.as, view_id: where.view_id });
  return {
    names,
    form,
    prefix: (where.ts ?? where.view_id).replace('.', '-'),
    confirm: confirmation,
    options: (query) => api('POST', 'options', { ...at(), ...query }),
    act: async ({ block_id, action_id, value, selected }) => {
      const body = { ...at(), block_id, action_id, value, selected };
      if (form) body.values = form.values();
      let sentence = '';
      try {
        const answer = await api('POST', 'press', body);
        if (!answer.ok) sentence = failureText(answer);
        else tourEvent(`press:${action_id}`);
      } catch (error) {
        sentence = error.message;
      }
      if (where.ts) {
        if (sentence) state.actionErrors.set(where.ts, sentence);
        else state.actionErrors.delete(where.ts);
      } else if (sentence) {
        announce(sentence);
        modalError(sentence);
      }
      await refresh();
    },
  };
}

function failureText(answer) {
  if (answer.error === 'operation_timeout') return 'Operation timed out. The app did not respond within three seconds. It may still have done what you requested.';
  if (answer.error === 'dispatch_failed') return 'The app is not connected to this workspace.';
  return answer.message || answer.error || 'That did not work.';
}

// ---- Home. ----

const forms = new Map(); // view id → Form

function formOf(view) {
  if (!forms.has(view.id)) forms.set(view.id, new Form());
  return forms.get(view.id);
}

function drawHome() {
  const view = state.views.home;
  const signature = JSON.stringify([state.as, view]);
  if (ui.home.dataset.signature === signature) return;
  ui.home.dataset.signature = signature;
  if (!view) {
    ui.home.replaceChildren(h('div', { class: 'empty' }, icon('home'), h('p', null, `${state.info.app} has not published a Home tab for you yet.`)));
    return;
  }
  const form = formOf(view);
  form.redraw();
  ui.home.replaceChildren(h('div', { class: 'home-sheet', testid: 'home' }, renderBlocks(view.blocks, surface({ view_id: view.id }, form))));
}

// ---- Modals: the top view of the person's stack, in a native dialog, which traps the focus. ----

let shown = '';

function drawModal() {
  const view = state.views.modals.at(-1);
  if (!view) {
    shown = '';
    ui.modal.dataset.view = '';
    ui.modal.replaceChildren();
    ui.modal.close();
    return;
  }
  const signature = JSON.stringify([state.as, view, state.views.modals.length]);
  if (signature === shown && ui.modal.open) return;
  const sameView = ui.modal.dataset.view === view.id && ui.modal.open;
  const focused = sameView ? ui.modal.contains(document.activeElement) && document.activeElement.id : null;
  shown = signature;
  ui.modal.dataset.view = view.id;
  const form = formOf(view);
  form.redraw();
  const depth = state.views.modals.length;
  const body = h('div', { class: 'modal-body' }, renderBlocks(view.blocks, surface({ view_id: view.id }, form)));
  const text = (t, otherwise) => (t ? plain(t) : otherwise);
  ui.modal.replaceChildren(h('form', { method: 'dialog', novalidate: true, onsubmit: (event) => submit(event, view, form) },
    h('header', null,
      botAvatar('tiny'),
      h('h2', { id: 'modal-title', tabindex: '-1' }, text(view.title, '')),
      depth > 1 && h('span', { class: 'badge' }, `step ${depth}`),
      h('button', { type: 'button', class: 'link close', 'aria-label': 'Close', testid: 'modal-close', onclick: () => closeModal(view) }, icon('close'))),
    body,
    h('p', { class: 'modal-error', role: 'alert', testid: 'modal-error' }),
    h('footer', null,
      h('button', { type: 'button', class: 'button', onclick: () => closeModal(view) }, text(view.close, depth > 1 ? 'Back' : 'Close')),
      view.submit && h('button', { type: 'submit', class: 'button primary', testid: 'modal-submit' }, h('span', { class: 'face' }, text(view.submit, 'Submit'))))));
  if (!ui.modal.open) ui.modal.showModal();
  const first = body.querySelector('[autofocus]') ?? body.querySelector('input, select, textarea');
  const again = focused && document.getElementById(focused);
  if (again) again.focus();
  else (first ?? $('modal-title')).focus();
}

function modalError(sentence) {
  const slot = ui.modal.querySelector('.modal-error');
  if (slot) slot.textContent = sentence;
}

async function submit(event, view, form) {
  event.preventDefault();
  const button = ui.modal.querySelector('[type=submit]');
  if (!button || button.classList.contains('busy')) return;
  modalError('');
  const missing = form.missing();
  showErrors(ui.modal, missing);
  if (Object.keys(missing).length) return;
  button.classList.add('busy');
  button.setAttribute('aria-busy', 'true');
  try {
    const answer = await api('POST', 'submit', { as: state.as, view_id: view.id, values: form.values() });
    if (answer.ok) {
      tourEvent('submit');
    } else if (answer.errors) {
      const unmatched = showErrors(ui.modal, answer.errors);
      if (unmatched.length) modalError(unmatched.join(' '));
    } else {
      modalError(answer.error === 'operation_timeout' ? 'We had some trouble connecting: the app did not answer within three seconds. Try again?' : failureText(answer));
    }
  } catch (error) {
    modalError(error.message);
  }
  button.classList.remove('busy');
  button.removeAttribute('aria-busy');
  await refresh();
}

async function closeModal(view) {
  try {
    await api('POST', 'close', { as: state.as, view_id: view.id });
  } catch (error) {
    modalError(error.message);
  }
  forms.delete(view.id);
  await refresh();
}

// confirmation shows a confirm object. It resolves to true only if the visitor confirms.
function confirmation(ask) {
  return new Promise((resolve) => {
    const done = (answer) => {
      ui.confirm.close();
      ui.confirm.replaceChildren();
      resolve(answer);
    };
    ui.confirm.replaceChildren(
      h('header', null, h('h2', { id: 'confirm-title' }, plain(ask.title))),
      h('div', { class: 'modal-body' }, h('div', { class: 'prose' }, ask.text?.type === 'mrkdwn' ? mrkdwn(ask.text.text, names) : plain(ask.text))),
      h('footer', null,
        h('button', { type: 'button', class: 'button', testid: 'confirm-cancel', onclick: () => done(false) }, plain(ask.deny ?? 'Cancel')),
        h('button', { type: 'button', class: `button ${ask.style === 'danger' ? 'danger' : 'primary'}`, testid: 'confirm-ok', autofocus: true, onclick: () => done(true) }, plain(ask.confirm ?? 'Yes'))));
    ui.confirm.onclose = () => !ui.confirm.open && resolve(false); // Escape
    ui.confirm.showModal();
  });
}

// ---- The composer. ----

let suggestions = [];
let active = -1;

function setComposer(text) {
  ui.message.value = text;
  resizeComposer();
  ui.message.focus();
  ui.message.setSelectionRange(text.length, text.length);
  suggest();
}

function resizeComposer() {
  ui.message.style.height = 'auto';
  ui.message.style.height = `${Math.min(ui.message.scrollHeight, 160)}px`;
}

function closeCompletion() {
  suggestions = [];
  active = -1;
  ui.completion.hidden = true;
  ui.message.removeAttribute('aria-activedescendant');
}

// suggest suggests commands while the first word is typed, and people after an @. For a complete word it suggests nothing, so that
// Enter sends the command.
function suggest() {
  const upTo = ui.message.value.slice(0, ui.message.selectionStart);
  const command = state.commands.find((c) => ui.message.value.split(/\s/)[0] === c.command);
  ui.hint.replaceChildren(...(command ? [h('code', null, `${command.command} ${command.usage_hint ?? ''}`), ' ', command.description] : []));
  const slash = /^\/\S*$/.exec(upTo);
  const at = /(?:^|\s)@([\p{L}\p{N}._-]*)$/u.exec(upTo);
  let found = [];
  if (slash && !state.commands.some((c) => c.command === upTo)) {
    found = state.commands.filter((c) => c.command.includes(upTo)).map((c) => ({
      key: c.command, label: c.command, hint: c.usage_hint, detail: c.description, from: 0, text: c.command + ' ', picture: botAvatar('tiny'),
    }));
  } else if (at) {
    const typed = at[1].toLowerCase();
    if (!state.people.some((p) => p.handle === typed)) {
      found = state.people.filter((p) => p.handle.startsWith(typed) || p.name.toLowerCase().split(' ').some((part) => part.startsWith(typed))).map((p) => ({
        key: p.handle, label: p.name, hint: '@' + p.handle, detail: p.title, from: upTo.length - at[1].length - 1, text: `@${p.handle} `, picture: avatar(p, 'tiny'),
      }));
    }
  }
  if (found.length === 0) return closeCompletion();
  suggestions = found;
  ui.completion.replaceChildren(...found.map((s, index) => {
    const li = h('li', { id: `suggestion-${index}`, role: 'option', testid: `completion-${s.key}` }, s.picture,
      h('span', null, h('strong', null, s.label), ' ', s.hint && h('code', null, s.hint), h('small', null, s.detail)));
    li.addEventListener('mousedown', (event) => {
      event.preventDefault();
      complete(s);
    });
    return li;
  }));
  ui.completion.hidden = false;
  activate(0);
}

function activate(index) {
  active = index;
  [...ui.completion.children].forEach((li, at) => {
    li.setAttribute('aria-selected', String(at === index));
    if (at === index) li.scrollIntoView({ block: 'nearest' });
  });
  ui.message.setAttribute('aria-activedescendant', `suggestion-${index}`);
}

function complete(s) {
  const value = ui.message.value;
  const caret = ui.message.selectionStart;
  const after = value.slice(caret).replace(/^\S*\s?/, '');
  ui.message.value = value.slice(0, s.from) + s.text + after;
  const to = s.from + s.text.length;
  ui.message.focus();
  ui.message.setSelectionRange(to, to);
  resizeComposer();
  closeCompletion();
  suggest();
}

async function send() {
  const text = ui.message.value.trim();
  const { as, channel } = state;
  if (!text || ui.send.classList.contains('busy')) return;
  if (!text.startsWith('/')) {
    ui.hint.textContent = 'This workspace supports only slash commands: begin with /.';
    return;
  }
  closeCompletion();
  ui.send.classList.add('busy');
  ui.message.readOnly = true;
  try {
    const answer = await api('POST', 'command', { as, channel, text });
    if (answer.ok) {
      tourEvent('command');
      ui.message.value = '';
    } else {
      const name = text.split(/\s/)[0];
      notice(as, channel, answer.error === 'unknown_command' ? `${name} is not a command of this workspace. Type / to see the commands.` : `${name} failed with the error “${answer.error}”. ${failureText(answer)}`);
    }
  } catch (error) {
    notice(as, channel, error.message);
  }
  ui.message.readOnly = false;
  ui.send.classList.remove('busy');
  resizeComposer();
  suggest();
  await refresh();
}

ui.message.addEventListener('input', () => {
  resizeComposer();
  suggest();
});
ui.message.addEventListener('click', suggest);
ui.message.addEventListener('blur', closeCompletion);
ui.message.addEventListener('keydown', (event) => {
  if (event.isComposing) return;
  const open = suggestions.length > 0;
  if (open && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
    event.preventDefault();
    activate((active + (event.key === 'ArrowDown' ? 1 : suggestions.length - 1)) % suggestions.length);
  } else if (open && (event.key === 'Tab' || (event.key === 'Enter' && !event.shiftKey))) {
    event.preventDefault();
    complete(suggestions[active]);
  } else if (open && event.key === 'Escape') {
    closeCompletion();
  } else if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault();
    send();
  }
});
ui.message.addEventListener('keypress', (event) => event.key === 'Enter' && !event.shiftKey && event.preventDefault());
ui.composer.addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
// Escape always closes a dialog. The view must then be closed in Slack too.
ui.modal.addEventListener('close', () => {
  const view = state.views.modals.at(-1);
  if (view && !ui.modal.open && ui.modal.dataset.view === view.id) closeModal(view);
});

// ---- The tour. ----

const tourKey = () => `tour ${state.info.started}`;

function drawTour() {
  const steps = state.info.tour;
  const closed = fragment().tour === 'off' || sessionStorage.getItem(tourKey()) === 'closed' || steps.length === 0;
  ui.tour.hidden = closed;
  if (closed) return;
  const next = steps.findIndex((_, index) => !state.tourDone.has(index));
  const over = next < 0;
  ui.tour.replaceChildren(
    h('div', { class: 'tour-head', testid: 'tour' },
      h('p', null, over ? state.info.epilogue : [h('strong', null, state.info.welcome), ' ', state.info.pitch]),
      h('button', { type: 'button', class: 'link', 'aria-label': 'Close the introduction', testid: 'tour-close', onclick: () => {
        sessionStorage.setItem(tourKey(), 'closed');
        drawTour();
      } }, icon('close'))),
    h('ol', null, steps.map((step, index) => {
      const done = state.tourDone.has(index);
      return h('li', { class: done ? 'done' : index === next ? 'next' : '', testid: `tour-step-${index + 1}` },
        h('span', { class: 'tour-number', 'aria-hidden': 'true' }, done ? icon('tick') : String(index + 1)),
        h('div', null,
          h('p', null, h('strong', null, step.title), done && h('span', { class: 'hidden' }, ' (done)'), h('span', { class: 'tour-text' }, ' ', mrkdwn(step.text, names))),
          h('button', { type: 'button', class: 'button', testid: `tour-go-${index + 1}`, onclick: () => {
            if (step.account) tenant.reveal(step.account);
            if (!step.until) tourEvent('', index);
            navigate({ as: step.as, channel: step.channel }, { compose: step.compose || undefined });
          } }, step.button)));
    })));
}

// tourEvent completes the first open step that waits for this event of the current person, and all steps before it.
function tourEvent(what, index = -1) {
  const at = index >= 0 ? index : state.info.tour.findIndex((step, i) => !state.tourDone.has(i) && step.until === what && step.as === state.as);
  if (at < 0) return;
  for (let i = 0; i <= at; i++) state.tourDone.add(i);
  drawTour();
}

// ---- Start. ----

async function start() {
  add($('brand-mark'), icon('mark'));
  add(ui.send, icon('send'));
  [state.info, state.people, state.commands] = await Promise.all([api('GET', 'info'), api('GET', 'people'), api('GET', 'commands')]);
  state.people = state.people.filter((p) => p.id !== state.info.slack.bot_user_id);
  ui.workspace.textContent = state.info.name;
  ui['tenant-name'].textContent = `${state.info.entra.domain}: the actual state`;
  state.channelsOf = new Map(await Promise.all(state.people.map(async (p) => [p.id, await api('GET', `channels?as=${p.id}`)])));
  loadReadState();
  tenant = new TenantPanel(ui.accounts, { feed: ui['tenant-feed'], announce, open: fragment().account ?? state.info.tour.find((step) => step.account)?.account });
  failurePanel = new FailurePanel(ui['failures-body']);
  ui.failures.addEventListener('toggle', async () => {
    if (!ui.failures.open) return;
    await failurePanel.refresh().catch((error) => announce(error.message));
    ui.failures.scrollIntoView({ block: 'nearest' });
    ui.failures.dataset.ready = '';
  });
  for (const button of document.querySelectorAll('#tabs button')) {
    button.prepend(icon({ rail: 'people', talk: 'chat', tenant: 'building' }[button.dataset.go]));
    button.addEventListener('click', () => setPane(button.dataset.go));
  }
  addEventListener('popstate', applyFragment);
  document.addEventListener('visibilitychange', refresh);
  drawTour();
  await applyFragment();
  listen();
  document.body.dataset.ready = 'true';
}

start().catch((error) => {
  ui.offline.hidden = false;
  ui.offline.textContent = `This page cannot start: ${error.message}`;
  console.error(error);
});
