// Slack's text formats, drawn as in Slack: mrkdwn (the format of section and context texts) and rich text (a tree).
//
// https://docs.slack.dev/messaging/formatting-message-text and
// https://docs.slack.dev/reference/block-kit/blocks/rich-text-block. Both create DOM nodes, never HTML.
//
// names resolves ids: { person(id), channel(id) }, each returning {name, handle} or undefined.

import { h, add, emoji, withEmoji, safeURL } from './dom.js';

// plain draws a plain_text object or a string, with emoji codes if the object allows them, and no other formatting.
export function plain(text) {
  if (text === undefined || text === null) return [];
  if (typeof text === 'string') return withEmoji(text);
  return withEmoji(text.text ?? '', text.emoji !== false);
}

// textObject draws a text object of either type.
export function textObject(text, names) {
  return text?.type === 'mrkdwn' ? mrkdwn(text.text ?? '', names) : plain(text);
}

export function mention(id, label, names) {
  const person = names.person(id);
  return h('span', { class: 'mention', title: person?.name ?? id }, '@' + (person?.name ?? label ?? id));
}

function channelMention(id, label, names) {
  return h('span', { class: 'mention' }, '#' + (names.channel(id)?.name ?? label ?? id));
}

function anchor(url, label) {
  const href = safeURL(url);
  if (!href) return h('span', null, label ?? url); // javascript: and the like
  const message = /^https?:\/\/[^/]+\/archives\/([A-Z0-9]+)\/p\d+$/.exec(href); // a link to a message opens in this page, as in Slack
  if (message) {
    const there = new URLSearchParams(location.hash.slice(1));
    there.set('channel', message[1]);
    return h('a', { href: '#' + there }, label ?? url);
  }
  return h('a', { href, target: '_blank', rel: 'noopener noreferrer' }, label ?? url.replace(/^mailto:/, ''));
}

// date draws <!date^…> in the visitor's time zone.
export function date(seconds, format, fallback) {
  const at = new Date(Number(seconds) * 1000);
  if (Number.isNaN(at.getTime())) return fallback ?? '';
  const as = (options) => at.toLocaleString('en-GB', options);
  const shown = (format || '{date_short} {time}')
    .replaceAll('{date_num}', at.toISOString().slice(0, 10))
    .replaceAll(/\{date_long(_pretty)?\}/g, as({ weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }))
    .replaceAll(/\{date_short(_pretty)?\}/g, as({ day: 'numeric', month: 'short', year: 'numeric' }))
    .replaceAll(/\{date(_pretty)?\}/g, as({ day: 'numeric', month: 'long', year: 'numeric' }))
    .replaceAll('{time_secs}', as({ hour: '2-digit', minute: '2-digit', second: '2-digit' }))
    .replaceAll('{time}', as({ hour: '2-digit', minute: '2-digit' }))
    .replaceAll(/\{ago\}/g, as({ dateStyle: 'medium', timeStyle: 'short' }));
  return h('time', { datetime: at.toISOString(), title: at.toString() }, shown);
}

// mrkdwn draws Slack's markup in Slack's order: preformatted text first, then quotes line by line, then the spans within a line.
// The three escapes &amp; &lt; &gt; are decoded last, so that escaped markup stays text.
export function mrkdwn(source, names) {
  const out = [];
  source.split('```').forEach((part, index, parts) => {
    if (index % 2 === 1 && index < parts.length - 1) {
      out.push(h('pre', null, unescapeEntities(part.replace(/^\n|\n$/g, ''))));
      return;
    }
    // With an odd number of fences, the last one is plain text.
    out.push(lines(index % 2 === 1 ? '```' + part : part, names));
  });
  return out;
}

function lines(source, names) {
  const out = [];
  let quote = null;
  source.split('\n').forEach((line, index, all) => {
    const quoted = /^(?:&gt;|>) ?(.*)$/.exec(line);
    if (quoted) {
      if (!quote) out.push((quote = h('blockquote', null)));
      else quote.append(h('br'));
      add(quote, spans(quoted[1], names));
      return;
    }
    const afterQuote = quote !== null;
    quote = null;
    if (index > 0 && !afterQuote) out.push(h('br'));
    if (line !== '' || index < all.length - 1) out.push(spans(line, names));
  });
  return out;
}

const markTags = { '*': 'strong', '_': 'em', '~': 's' };

function spans(source, names) {
  const out = [];
  let text = '';
  const flush = () => {
    if (text) out.push(...autolink(unescapeEntities(text)));
    text = '';
  };
  for (let i = 0; i < source.length; i++) {
    const c = source[i];
    if (c === '`') {
      const end = source.indexOf('`', i + 1);
      if (end > i + 1) {
        flush();
        out.push(h('code', null, unescapeEntities(source.slice(i + 1, end))));
        i = end;
        continue;
      }
    }
    if (c === '<') {
      const end = source.indexOf('>', i + 1);
      if (end > i + 1) {
        flush();
        out.push(reference(source.slice(i + 1, end), names));
        i = end;
        continue;
      }
    }
    if (markTags[c] && opens(source, i)) {
      const end = closing(source, i);
      if (end > 0) {
        flush();
        out.push(h(markTags[c], null, spans(source.slice(i + 1, end), names)));
        i = end;
        continue;
      }
    }
    text += c;
  }
  flush();
  return out;
}

const wordCharacter = /[\p{L}\p{N}]/u;

// A mark opens at the start of a word and closes at the end of one: 2*3*4 and snake_case_names stay unchanged.
function opens(source, at) {
  const before = source[at - 1];
  const after = source[at + 1];
  return after !== undefined && after !== ' ' && after !== source[at] && !(before !== undefined && wordCharacter.test(before));
}

function closing(source, from) {
  const mark = source[from];
  for (let i = from + 1; i < source.length; i++) {
    if (source[i] === '`' || source[i] === '<') {
      const end = source.indexOf(source[i] === '<' ? '>' : '`', i + 1);
      if (end > 0) i = end;
      continue;
    }
    if (source[i] !== mark || source[i - 1] === ' ' || i === from + 1) continue;
    const after = source[i + 1];
    if (after === undefined || !wordCharacter.test(after)) return i;
  }
  return -1;
}

// reference draws the text between < and >: a person, a channel, a broadcast, a date or a link.
function reference(inner, names) {
  const bar = inner.indexOf('|');
  const target = bar < 0 ? inner : inner.slice(0, bar);
  const label = bar < 0 ? undefined : unescapeEntities(inner.slice(bar + 1));
  if (/^@[UW]/.test(target)) return mention(target.slice(1), label, names);
  if (/^#[CG]/.test(target)) return channelMention(target.slice(1), label, names);
  if (target.startsWith('!date^')) {
    const [, seconds, format] = target.split('^');
    return date(seconds, format, label);
  }
  if (target.startsWith('!subteam^')) return h('span', { class: 'mention' }, label ?? '@group');
  if (target.startsWith('!')) return h('span', { class: 'mention broadcast' }, '@' + (label ?? target.slice(1)));
  if (!/^[a-z][a-z0-9+.-]*:/i.test(target)) return `<${unescapeEntities(inner)}>`; // not a known reference: shown as written
  return anchor(unescapeEntities(target), label === undefined ? undefined : withEmoji(label));
}

function autolink(text) {
  const out = [];
  let from = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"]*[^\s<>".,;:!?)]/g)) {
    out.push(...withEmoji(text.slice(from, match.index)), anchor(match[0]));
    from = match.index + match[0].length;
  }
  out.push(...withEmoji(text.slice(from)));
  return out;
}

function unescapeEntities(text) {
  return text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
}

// richText draws the elements of a rich_text block (or of a table cell).
export function richText(elements, names) {
  return (elements ?? []).map((element) => {
    switch (element.type) {
      case 'rich_text_section':
        return h('div', { class: 'rich-section' }, inline(element.elements, names));
      case 'rich_text_quote':
        return h('blockquote', null, inline(element.elements, names));
      case 'rich_text_preformatted':
        return h('pre', null, inline(element.elements, names));
      case 'rich_text_list': {
        const list = h(element.style === 'ordered' ? 'ol' : 'ul', { class: `indent-${element.indent ?? 0}` });
        if (element.offset) list.setAttribute('start', String(element.offset + 1));
        for (const item of element.elements ?? []) list.append(h('li', null, item.type ? inline(item.elements, names) : null));
        return list;
      }
      default:
        return inline([element], names);
    }
  });
}

function inline(elements, names) {
  return (elements ?? []).map((element) => styled(leaf(element, names), element.style));
}

function leaf(element, names) {
  switch (element.type) {
    case 'text':
      return withEmoji(element.text ?? '', false);
    case 'link':
      return anchor(element.url ?? '', element.text);
    case 'user':
      return mention(element.user_id, undefined, names);
    case 'channel':
      return channelMention(element.channel_id, undefined, names);
    case 'usergroup':
      return h('span', { class: 'mention' }, '@' + element.usergroup_id);
    case 'broadcast':
      return h('span', { class: 'mention broadcast' }, '@' + element.range);
    case 'emoji':
      return emoji(element.name ?? '');
    case 'date':
      return date(element.timestamp, element.format, element.fallback);
    case 'color':
      return element.value ?? '';
    default:
      return h('span', { class: 'unknown' }, `[${element.type}]`);
  }
}

function styled(node, style) {
  let out = node;
  if (style?.code) out = h('code', null, out);
  if (style?.strike) out = h('s', null, out);
  if (style?.underline) out = h('u', null, out);
  if (style?.italic) out = h('em', null, out);
  if (style?.bold) out = h('strong', null, out);
  return out;
}
