// Helpers of the page: building elements, calling the sandbox, drawing icons.
//
// The page never converts data to HTML: text is added as text nodes, attributes are set with setAttribute, links are checked by
// safeURL. innerHTML is not used.

// h builds an element. Properties are attributes, except onX (a listener) and testid (data-testid). true sets an empty attribute;
// null, undefined and false set none. Children may be nested arrays, nodes, strings or empty.
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on') && typeof value === 'function') el.addEventListener(name.slice(2), value);
    else if (name === 'testid') el.dataset.testid = value;
    else el.setAttribute(name, value === true ? '' : value);
  }
  return add(el, children);
}

export function add(el, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false || child === '') continue;
    el.append(child);
  }
  return el;
}

// api calls the sandbox's JSON API. It resolves to the decoded response, and rejects with the sandbox's error message.
export async function api(method, path, body) {
  const init = { method, headers: {} };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers['Content-Type'] = 'application/json';
  }
  const answer = await fetch('/sandbox/' + path, init);
  const text = await answer.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    throw new Error(`The sandbox answered ${answer.status} with something that is not JSON.`);
  }
  if (!answer.ok) {
    const failure = new Error(data?.message || data?.error || `The sandbox answered ${answer.status}.`);
    failure.code = data?.error;
    throw failure;
  }
  return data;
}

// safeURL returns the URL if a chat message may link to it, and null for others (javascript:, data:).
export function safeURL(url) {
  try {
    const parsed = new URL(url); // relative URLs are refused: they would point to the sandbox
    return ['http:', 'https:', 'mailto:', 'tel:'].includes(parsed.protocol) ? parsed.href : null;
  } catch {
    return null;
  }
}

export function initials(name) {
  const words = name.replace(/[^\p{L}\p{N} ]/gu, '').split(' ').filter(Boolean);
  return ((words[0]?.[0] ?? '?') + (words.length > 1 ? words.at(-1)[0] : '')).toUpperCase();
}

// avatar is a tile with a person's initials on their colour.
export function avatar(person, size = '') {
  const tile = h('span', { class: `avatar ${size}`, 'aria-hidden': 'true' }, initials(person.name));
  tile.style.setProperty('--tile', person.color || '#5d6b69');
  return tile;
}

export function botAvatar(size = '') {
  return h('span', { class: `avatar bot ${size}`, 'aria-hidden': 'true' }, icon('mark'));
}

const svgNS = 'http://www.w3.org/2000/svg';

// Each icon is a list of stroked paths on a 24 by 24 grid; a leading "!" means filled.
const paths = {
  mark: ['M3 13l4.5 5L15 7', 'M11 16l2 2 8-11'],
  hash: ['M9 4 7 20', 'M17 4l-2 16', 'M4 9h17', 'M3 15h17'],
  lock: ['M6 11h12v9H6z', 'M8.5 11V8a3.5 3.5 0 0 1 7 0v3'],
  unlock: ['M6 11h12v9H6z', 'M8.5 11V8a3.5 3.5 0 0 1 6.8-1.2'],
  home: ['M4 11l8-7 8 7', 'M6 10v10h12V10', 'M10 20v-6h4v6'],
  chat: ['M4 5h16v11H10l-4 4v-4H4z'],
  people: ['M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z', 'M2.5 20c0-4 3-6 6.5-6s6.5 2 6.5 6', 'M16 4.5a3.5 3.5 0 0 1 0 6.5', 'M18 14.5c2.2.8 3.5 2.7 3.5 5.5'],
  person: ['M12 11.5a4 4 0 1 0 0-8 4 4 0 0 0 0 8z', 'M4.5 20.5c0-4.2 3.4-6.5 7.5-6.5s7.5 2.3 7.5 6.5'],
  building: ['M5 21V4h9v17', 'M14 9h5v12', 'M3 21h18', 'M8 8h3', 'M8 12h3', 'M8 16h3'],
  phone: ['M8 2.5h8a1 1 0 0 1 1 1v17a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1v-17a1 1 0 0 1 1-1z', 'M10.5 18.5h3'],
  call: ['M6 3h3.5l1.5 5-2.2 1.6a12 12 0 0 0 5.6 5.6L16 13l5 1.5V18a3 3 0 0 1-3 3A15 15 0 0 1 3 6a3 3 0 0 1 3-3z'],
  app: ['M6 3.5h12v17H6z', 'M9 12l2.2 2.2L15.5 10'],
  token: ['M3.5 7.5h17v9h-17z', 'M7 12h.01', 'M11 12h.01', 'M15 12h2.5'],
  key: ['M8 16.5a4.5 4.5 0 1 1 4.2-6.1L21 10.5v4h-3v2.5h-3.5v-2.6h-2.3A4.5 4.5 0 0 1 8 16.5z', 'M7.5 12h.01'],
  laptop: ['M5 5h14v10H5z', 'M2.5 19h19'],
  mail: ['M3.5 6h17v12h-17z', 'M4 7l8 6 8-6'],
  link: ['M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.7-5.7l-1.3 1.3', 'M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.7 5.7l1.3-1.3'],
  qr: ['M4 4h6v6H4z', 'M14 4h6v6h-6z', 'M4 14h6v6H4z', 'M14 14h2v2', 'M20 14v2', 'M16 20h4v-2', 'M14 18v2'],
  ticket: ['M3.5 7.5h17v3a1.5 1.5 0 0 0 0 3v3h-17v-3a1.5 1.5 0 0 0 0-3z', 'M14 8v1.5', 'M14 11.5v1', 'M14 14.5V16'],
  dots: ['!M3 12a2 2 0 1 0 4 0 2 2 0 0 0-4 0z', '!M10 12a2 2 0 1 0 4 0 2 2 0 0 0-4 0z', '!M17 12a2 2 0 1 0 4 0 2 2 0 0 0-4 0z'],
  check: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M8 12.2l2.8 2.8L16 9.5'],
  tick: ['M5 12.5l4.5 4.5L19 7.5'],
  cross: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M9 9l6 6', 'M15 9l-6 6'],
  close: ['M6 6l12 12', 'M18 6L6 18'],
  alert: ['M12 4l9 16H3z', 'M12 10v4.5', 'M12 17.2h.01'],
  stop: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M7.5 12h9'],
  clock: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M12 7v5l3.5 2'],
  hourglass: ['M7 3h10', 'M7 21h10', 'M8 3v4l4 5-4 5v4', 'M16 3v4l-4 5 4 5v4'],
  shield: ['M12 3l8 3v6c0 4.5-3.3 7.8-8 9-4.7-1.2-8-4.5-8-9V6z', 'M8.5 12l2.5 2.5 4.5-5'],
  bell: ['M6 17V11a6 6 0 0 1 12 0v6', 'M4 17h16', 'M10 20.5h4'],
  info: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M12 11v5.5', 'M12 7.7h.01'],
  repeat: ['M4 12a8 8 0 0 1 13.5-5.8L20 8.5', 'M20 4v4.5h-4.5', 'M20 12a8 8 0 0 1-13.5 5.8L4 15.5', 'M4 20v-4.5h4.5'],
  siren: ['M6 17v-4a6 6 0 0 1 12 0v4', 'M4 20.5h16V17H4z', 'M12 3V1.5', 'M4.5 6L3.3 5', 'M19.5 6l1.2-1'],
  memo: ['M6 3.5h9l3.5 3.5v13.5H6z', 'M9 10h6.5', 'M9 13.5h6.5', 'M9 17h4'],
  eye: ['M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12z', 'M12 14.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z'],
  search: ['M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13z', 'M15.5 15.5L21 21'],
  pencil: ['M4 20l1-4.5L16.5 4 20 7.5 8.5 19z'],
  dot: ['!M12 17.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11z'],
  send: ['M4 12l16-7.5-4.5 15.5-4-6z', 'M11.5 14L20 4.5'],
  bolt: ['M13 2.5L5 13.5h6l-1 8 8-11h-6z'],
  down: ['M6 9l6 6 6-6'],
  plug: ['M9 3v5', 'M15 3v5', 'M6.5 8h11v3.5a5.5 5.5 0 0 1-11 0z', 'M12 17v4.5'],
  flag: ['M5 21V4', 'M5 4.5h13l-2.5 4 2.5 4H5'],
  hand: ['M8 12V6a1.5 1.5 0 0 1 3 0v5', 'M11 10.5V4.5a1.5 1.5 0 0 1 3 0v6', 'M14 11V6.5a1.5 1.5 0 0 1 3 0V15a6 6 0 0 1-11 3.5L3.7 14a1.5 1.5 0 0 1 2.5-1.5L8 14.5'],
};

export function icon(name, extra = '') {
  const svg = document.createElementNS(svgNS, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon ${extra}`);
  svg.setAttribute('aria-hidden', 'true');
  for (const path of paths[name] ?? paths.dots) {
    const p = document.createElementNS(svgNS, 'path');
    if (path.startsWith('!')) p.setAttribute('class', 'filled');
    p.setAttribute('d', path.replace('!', ''));
    svg.append(p);
  }
  return svg;
}

// Emoji drawn as icons, so that they are visible without an emoji font, as in test containers.
// shortcode → [character, icon, tone]
const emojiTable = {
  white_check_mark: ['✅', 'check', 'good'], heavy_check_mark: ['✔️', 'tick', 'good'], ballot_box_with_check: ['☑️', 'check', 'good'],
  x: ['❌', 'cross', 'bad'], heavy_multiplication_x: ['✖️', 'close', 'bad'], negative_squared_cross_mark: ['❎', 'cross', 'good'],
  warning: ['⚠️', 'alert', 'warn'], no_entry: ['⛔', 'stop', 'bad'], no_entry_sign: ['🚫', 'stop', 'bad'], octagonal_sign: ['🛑', 'stop', 'bad'],
  lock: ['🔒', 'lock', ''], closed_lock_with_key: ['🔐', 'lock', ''], unlock: ['🔓', 'unlock', ''], key: ['🔑', 'key', 'warn'],
  hourglass: ['⌛', 'hourglass', ''], hourglass_flowing_sand: ['⏳', 'hourglass', ''], alarm_clock: ['⏰', 'clock', ''], stopwatch: ['⏱️', 'clock', ''],
  timer_clock: ['⏲️', 'clock', ''], clock3: ['🕒', 'clock', ''], iphone: ['📱', 'phone', ''], calling: ['📲', 'phone', ''], telephone_receiver: ['📞', 'call', ''],
  phone: ['☎️', 'call', ''], shield: ['🛡️', 'shield', 'good'], bust_in_silhouette: ['👤', 'person', ''], busts_in_silhouette: ['👥', 'people', ''],
  bell: ['🔔', 'bell', 'warn'], information_source: ['ℹ️', 'info', ''], arrows_counterclockwise: ['🔄', 'repeat', ''], repeat: ['🔁', 'repeat', ''],
  rotating_light: ['🚨', 'siren', 'bad'], memo: ['📝', 'memo', ''], pencil2: ['✏️', 'pencil', ''], scroll: ['📜', 'memo', ''], clipboard: ['📋', 'memo', ''],
  eyes: ['👀', 'eye', ''], mag: ['🔍', 'search', ''], email: ['📧', 'mail', ''], envelope: ['✉️', 'mail', ''], computer: ['💻', 'laptop', ''], ticket: ['🎫', 'ticket', ''],
  zap: ['⚡', 'bolt', 'warn'], link: ['🔗', 'link', ''], electric_plug: ['🔌', 'plug', ''], wave: ['👋', 'hand', ''], raised_hand: ['✋', 'hand', ''],
  large_green_circle: ['🟢', 'dot', 'good'], red_circle: ['🔴', 'dot', 'bad'], large_yellow_circle: ['🟡', 'dot', 'warn'], large_orange_circle: ['🟠', 'dot', 'warn'],
  large_blue_circle: ['🔵', 'dot', 'calm'], white_circle: ['⚪', 'dot', 'faint'], black_circle: ['⚫', 'dot', ''], triangular_flag_on_post: ['🚩', 'flag', 'bad'],
};
const byCharacter = new Map(Object.entries(emojiTable).map(([code, [character]]) => [character.replace('\uFE0F', ''), code]));
const emojiPattern = /:([a-z0-9_+-]{1,60}):|(\p{Extended_Pictographic})\uFE0F?/gu;

export function emoji(code) {
  const known = emojiTable[code];
  if (!known) return `:${code}:`;
  return h('span', { class: `emoji ${known[2]}`, role: 'img', 'aria-label': code.replaceAll('_', ' '), title: `:${code}:` }, icon(known[1]));
}

// withEmoji splits text into strings and drawn emoji. Codes (:lock:) are drawn only if codes is true; emoji characters always are.
export function withEmoji(text, codes = true) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(emojiPattern)) {
    const code = match[1] === undefined ? byCharacter.get(match[2]) : codes && match[1];
    if (!code || !emojiTable[code]) continue;
    parts.push(text.slice(from, match.index), emoji(code));
    from = match.index + match[0].length;
  }
  parts.push(text.slice(from));
  return parts.filter((part) => part !== '');
}
