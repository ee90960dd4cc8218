// Block Kit, drawn: the blocks and elements that messages, modals and the App Home may contain.
// https://docs.slack.dev/reference/block-kit/blocks
//
// An unsupported block is shown as a box that names its type. It is never dropped silently: nobody should decide on a card of
// which a part is missing.
//
// Every function takes the surface it draws on, as `on`:
//   on.names           ids → names, see text.js, and on.names.people(), on.names.channels() to pick from
//   on.form            a Form that keeps the entered values; null on a message
//   on.act(action)     sends an action: {block_id, action_id, type, value?, selected?}; returns a promise that resolves after the app's answer
//   on.options(query)  requests the options of an external select from the app: {block_id, action_id, value}
//   on.confirm(object) shows a confirmation dialog; returns a promise of true or false
//   on.prefix          makes element ids unique on the page

import { h, add } from './dom.js';
import { plain, textObject, richText } from './text.js';
import { combobox } from './combobox.js';

// Form stores the entered values by block and action id, so that they are kept when the app updates the view, as in Slack.
export class Form {
  #kept = new Map();
  #readers = new Map();

  #key(block, action) {
    return JSON.stringify([block, action]);
  }

  // field registers an input that is on screen. required: the field must not be empty.
  field(block, action, read, required) {
    this.#readers.set(this.#key(block, action), { block, action, read, required });
  }

  kept(block, action) {
    return this.#kept.get(this.#key(block, action));
  }

  // redraw stores the current values; it is called before the view is redrawn.
  redraw() {
    for (const [key, { read }] of this.#readers) this.#kept.set(key, read());
    this.#readers.clear();
  }

  // values returns the current values: {block_id: {action_id: string or array}}.
  values() {
    const out = {};
    for (const { block, action, read } of this.#readers.values()) (out[block] ??= {})[action] = read();
    return out;
  }

  // missing returns errors for empty required blocks, as Slack's client does before it submits.
  missing() {
    const out = {};
    for (const { block, read, required } of this.#readers.values()) {
      if (required && read().length === 0) out[block] = 'Please complete this required field.';
    }
    return out;
  }
}

export function renderBlocks(blocks, on) {
  return (blocks ?? []).map((block, index) => renderBlock(block, on, block.block_id ?? `block-${index}`));
}

function renderBlock(block, on, id) {
  const box = (kind, ...children) => h('div', { class: `block ${kind}`, 'data-block': id }, children);
  switch (block.type) {
    case 'header':
      return box('header', h('h3', null, plain(block.text)));
    case 'divider':
      return h('hr', { class: 'block divider' });
    case 'section':
      return box('section',
        h('div', { class: 'section-body' },
          block.text && h('div', { class: 'prose' }, textObject(block.text, on.names)),
          block.fields && h('div', { class: 'fields' }, block.fields.map((field) => h('div', { class: 'prose' }, textObject(field, on.names))))),
        block.accessory && h('div', { class: 'accessory' }, renderElement(block.accessory, on, id, {})));
    case 'context':
      return box('context', (block.elements ?? []).map((element) =>
        element.type === 'image' ? image(element) : h('span', { class: 'prose' }, textObject(element, on.names))));
    case 'actions':
      return box('actions', (block.elements ?? []).map((element) => renderElement(element, on, id, {})));
    case 'input':
      return renderInput(block, on, id);
    case 'rich_text':
      return box('rich-text prose', richText(block.elements, on.names));
    case 'image':
      return box('image-block', block.title && h('div', { class: 'caption' }, plain(block.title)), image(block));
    case 'markdown':
      return box('section', h('div', { class: 'prose' }, h('div', { class: 'as-written' }, block.text ?? '')));
    case 'table':
      return box('table-block', h('table', null, (block.rows ?? []).map((row, index) => h('tr', null, row.map((cell) =>
        h(index === 0 ? 'th' : 'td', null, cell.type === 'rich_text' ? richText(cell.elements, on.names) : (cell.text ?? '')))))));
    default:
      return box('unknown-block', `This page cannot draw a block of type “${block.type}”.`);
  }
}

// The page loads no images from the network. It shows the alternative text instead.
function image(element) {
  return h('span', { class: 'image', role: 'img', 'aria-label': element.alt_text ?? '' }, element.alt_text || 'image');
}

function renderInput(block, on, id) {
  const field = `${on.prefix}-${id}-${block.element?.action_id ?? ''}`;
  const label = plain(block.label);
  const group = ['radio_buttons', 'checkboxes'].includes(block.element?.type);
  const labelID = `${field}-label`;
  return h(group ? 'fieldset' : 'div', { class: 'block input', 'data-block': id, 'aria-describedby': group ? `${field}-error` : null },
    h(group ? 'legend' : 'label', { id: labelID, for: group ? null : field, class: 'label' }, label, block.optional && h('span', { class: 'optional' }, ' (optional)')),
    renderElement(block.element, on, id, { field, input: true, required: !block.optional, dispatch: block.dispatch_action === true }),
    block.hint && h('p', { class: 'hint', id: `${field}-hint` }, plain(block.hint)),
    h('p', { class: 'error', id: `${field}-error`, role: 'alert', testid: `error-${id}` }));
}

const optionLabel = (option) => option.text?.text ?? option.value;

function optionsOf(element) {
  return element.options ?? (element.option_groups ?? []).flatMap((group) => group.options ?? []);
}

// renderElement draws one interactive element. place is {field, input, required, dispatch} in an input block, {} elsewhere.
// Outside an input block, and with dispatch, a choice is sent to the app immediately.
function renderElement(element, on, block, place) {
  const action = element?.action_id ?? '';
  const id = place.field ?? `${on.prefix}-${block}-${action}`;
  const testid = `action-${action}`;
  const kept = on.form?.kept(block, action);
  const required = place.input && place.required;
  const live = !place.input || place.dispatch;
  const name = element?.placeholder?.text ?? element?.text?.text ?? action;
  const shared = { id, testid, 'aria-describedby': place.input ? `${id}-hint ${id}-error` : null, 'aria-required': required ? 'true' : null, 'aria-label': place.input ? null : name };

  const keep = (read) => on.form?.field(block, action, read, required);
  const send = async (details, control) => {
    if (!live) return;
    if (element.confirm && !(await on.confirm(element.confirm))) return;
    control?.classList.add('busy');
    await on.act({ block_id: block, action_id: action, type: element.type, ...details });
    control?.classList.remove('busy');
  };

  switch (element?.type) {
    case 'button':
      return button(element, on, block, testid);

    case 'plain_text_input':
    case 'email_text_input':
    case 'url_text_input':
    case 'number_input': {
      const types = { plain_text_input: 'text', email_text_input: 'email', url_text_input: 'url', number_input: 'text' };
      const control = h(element.multiline ? 'textarea' : 'input', {
        ...shared, type: element.multiline ? null : types[element.type], rows: element.multiline ? '4' : null, placeholder: element.placeholder?.text,
        inputmode: element.type === 'number_input' ? 'decimal' : null, maxlength: element.max_length, minlength: element.min_length, autocomplete: 'off',
        autofocus: element.focus_on_load,
      });
      control.value = kept ?? element.initial_value ?? '';
      keep(() => control.value);
      const triggers = element.dispatch_action_config?.trigger_actions_on ?? ['on_enter_pressed'];
      if (place.dispatch && triggers.includes('on_enter_pressed')) control.addEventListener('keydown', (event) => {
        if (event.key !== 'Enter' || (element.multiline && event.shiftKey)) return;
        event.preventDefault();
        send({ value: control.value }, control);
      });
      if (place.dispatch && triggers.includes('on_character_entered')) control.addEventListener('input', () => send({ value: control.value }, control));
      return control;
    }

    case 'static_select': {
      const control = h('select', shared);
      control.append(h('option', { value: '' }, element.placeholder?.text ?? 'Select an option'));
      const option = (o) => h('option', { value: o.value, title: o.description?.text }, optionLabel(o));
      for (const o of element.options ?? []) control.append(option(o));
      for (const group of element.option_groups ?? []) control.append(h('optgroup', { label: group.label?.text ?? '' }, (group.options ?? []).map(option)));
      control.value = kept ?? element.initial_option?.value ?? '';
      if (control.selectedIndex < 0) control.value = '';
      keep(() => control.value);
      control.addEventListener('change', () => control.value && send({ selected: control.value }, control));
      return control;
    }

    case 'radio_buttons':
    case 'checkboxes': {
      const many = element.type === 'checkboxes';
      const initial = kept ?? (many ? (element.initial_options ?? []).map((o) => o.value) : (element.initial_option?.value ?? ''));
      const control = h('div', { class: 'choices', id, testid, role: many ? 'group' : 'radiogroup', 'aria-labelledby': place.input ? `${id}-label` : null });
      for (const o of element.options ?? []) {
        const tick = h('input', { type: many ? 'checkbox' : 'radio', name: id, value: o.value, testid: `option-${o.value}` });
        tick.checked = many ? initial.includes(o.value) : initial === o.value;
        control.append(h('label', { class: 'choice' }, tick,
          h('span', null, h('span', null, textObject(o.text, on.names)), o.description && h('small', null, textObject(o.description, on.names)))));
      }
      const read = () => {
        const ticked = [...control.querySelectorAll('input:checked')].map((tick) => tick.value);
        return many ? ticked : (ticked[0] ?? '');
      };
      keep(read);
      control.addEventListener('change', () => send({ selected: read() }, control));
      return control;
    }

    case 'overflow': {
      const menu = h('div', { class: 'overflow-menu', popover: 'auto' });
      const control = h('button', { type: 'button', class: 'button overflow', testid, 'aria-label': 'More actions', 'aria-haspopup': 'menu' }, '⋯');
      for (const o of element.options ?? []) {
        menu.append(h('button', { type: 'button', testid: `option-${o.value}`, onclick: () => {
          menu.hidePopover();
          send({ selected: o.value }, control);
        } }, plain(o.text)));
      }
      control.addEventListener('click', () => {
        const at = control.getBoundingClientRect();
        menu.style.setProperty('left', `${Math.min(at.left, innerWidth - 240)}px`);
        menu.style.setProperty('top', `${at.bottom + 4}px`);
        menu.togglePopover();
      });
      return h('span', null, control, menu);
    }

    case 'datepicker':
    case 'timepicker': {
      const control = h('input', { ...shared, type: element.type === 'datepicker' ? 'date' : 'time' });
      control.value = kept ?? element.initial_date ?? element.initial_time ?? '';
      keep(() => control.value);
      control.addEventListener('change', () => send({ selected: control.value }, control));
      return control;
    }

    case 'users_select': case 'multi_users_select':
    case 'channels_select': case 'multi_channels_select':
    case 'conversations_select': case 'multi_conversations_select':
    case 'external_select': case 'multi_external_select':
    case 'multi_static_select':
      return searchSelect(element, on, block, place, { id, testid, kept, keep, send });

    case 'image':
      return image(element);
    default:
      return h('span', { class: 'unknown-block' }, `This page cannot draw an element of type “${element?.type}”.`);
  }
}

function button(element, on, block, testid) {
  const style = element.style === 'primary' || element.style === 'danger' ? element.style : '';
  const control = h('button', {
    type: 'button', class: `button ${style}`, testid, 'data-value': element.value, 'aria-label': element.accessibility_label,
  }, h('span', { class: 'face' }, plain(element.text)));
  control.addEventListener('click', async () => {
    if (control.classList.contains('busy')) return;
    if (element.confirm && !(await on.confirm(element.confirm))) return;
    control.classList.add('busy');
    control.setAttribute('aria-busy', 'true');
    if (element.url) window.open(element.url, '_blank', 'noopener');
    await on.act({ block_id: block, action_id: element.action_id, type: 'button', value: element.value });
    control.classList.remove('busy');
    control.removeAttribute('aria-busy');
  });
  return control;
}

// searchSelect draws selects with search: people, channels, a static list, or options from the app.
function searchSelect(element, on, block, place, { id, testid, kept, keep, send }) {
  const multi = element.type.startsWith('multi_');
  const kind = element.type.replace('multi_', '');
  const people = () => on.names.people().map((person) => ({ value: person.id, label: person.name, detail: `@${person.handle} · ${person.title}` }));
  const channels = () => on.names.channels().map((channel) => ({ value: channel.id, label: '#' + channel.name }));
  const staticOptions = () => (element.option_groups ? element.option_groups.flatMap((group) => group.options.map((o) => ({ ...o, group: group.label?.text }))) : optionsOf(element))
    .map((o) => ({ value: o.value, label: optionLabel(o), detail: o.description?.text, group: o.group }));
  const filterBy = (all) => async (typed) => all().filter((o) => `${o.label} ${o.detail ?? ''}`.toLowerCase().includes(typed.toLowerCase()));
  const load = {
    users_select: filterBy(people),
    channels_select: filterBy(channels),
    conversations_select: filterBy(channels),
    static_select: filterBy(staticOptions),
    external_select: async (typed) => {
      const answer = await on.options({ block_id: block, action_id: element.action_id, value: typed });
      if (answer.ok === false) throw new Error(answer.message);
      const flat = answer.option_groups ? answer.option_groups.flatMap((group) => group.options.map((o) => ({ ...o, group: group.label?.text }))) : (answer.options ?? []);
      return flat.map((o) => ({ value: o.value, label: optionLabel(o), detail: o.description?.text, group: o.group }));
    },
  }[kind];

  const initial = [element.initial_options ?? element.initial_option ?? []].flat().map((o) => ({ value: o.value, label: optionLabel(o) }));
  const initialIDs = [element.initial_users ?? element.initial_user ?? element.initial_channels ?? element.initial_channel ?? element.initial_conversations ?? element.initial_conversation ?? []].flat();
  const optionFor = (value) => [...people(), ...channels(), ...staticOptions(), ...initial].find((o) => o.value === value) ?? labels(on).get(value) ?? { value, label: value };
  const chosen = kept !== undefined ? [kept].flat().filter(Boolean).map(optionFor) : [...initial, ...initialIDs.map(optionFor)];

  const field = combobox({
    id, testid, multi, chosen, placeholder: element.placeholder?.text ?? 'Search', label: place.input ? undefined : (element.placeholder?.text ?? element.action_id),
    minimum: kind === 'external_select' ? (element.min_query_length ?? 3) : 0,
    load: async (typed) => {
      const found = await load(typed);
      for (const o of found) labels(on).set(o.value, o);
      return found;
    },
    changed: () => {
      const value = field.value();
      if (multi || value) send({ selected: value }, field.element);
    },
  });
  keep(field.value);
  return field.element;
}

// The labels of options from the app, needed when a view is redrawn with one of them selected.
const labelsOf = new WeakMap();
function labels(on) {
  const owner = on.form ?? on;
  if (!labelsOf.has(owner)) labelsOf.set(owner, new Map());
  return labelsOf.get(owner);
}

// showErrors shows the messages under their fields and focuses the first of these fields. It returns the messages without a field.
export function showErrors(root, errors) {
  const unmatched = [];
  for (const slot of root.querySelectorAll('.block.input .error')) slot.replaceChildren();
  for (const box of root.querySelectorAll('.block.input')) {
    box.classList.remove('wrong');
    for (const control of box.querySelectorAll('input, select, textarea')) control.removeAttribute('aria-invalid');
  }
  let first = null;
  for (const [block, message] of Object.entries(errors)) {
    const box = [...root.querySelectorAll('.block.input')].find((candidate) => candidate.dataset.block === block);
    if (!box) {
      unmatched.push(message);
      continue;
    }
    box.classList.add('wrong');
    add(box.querySelector('.error'), message);
    const control = box.querySelector('input, select, textarea');
    control?.setAttribute('aria-invalid', 'true');
    first ??= control;
  }
  first?.focus();
  return unmatched;
}
