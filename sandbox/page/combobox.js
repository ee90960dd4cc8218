// A field with search as you type, for Block Kit elements that select from a long list: people, channels, and options from the
// app. It follows the ARIA combobox pattern: the list is announced, arrow keys move, Enter selects, Escape closes.

import { h } from './dom.js';

let serial = 0;

// combobox builds the field. o:
//   id, testid, placeholder, label
//   multi      several can be selected; they are shown before the field as chips
//   chosen     the initial selection: [{value, label}]
//   minimum    minimum number of characters before load is called (0: immediately)
//   load       (typed) → Promise of [{value, label, detail?, group?}]
//   changed    called after every selection or removal
// It returns {element, value()}: value() is a string ('' for none), or an array of them if multi.
export function combobox(o) {
  let chosen = [...(o.chosen ?? [])];
  let offered = [];
  let active = -1;
  let lastRequest = 0;
  const listID = `list-${++serial}`;
  const input = h('input', {
    type: 'text', id: o.id, testid: o.testid, placeholder: o.placeholder, role: 'combobox', autocomplete: 'off', spellcheck: 'false',
    'aria-expanded': 'false', 'aria-controls': listID, 'aria-autocomplete': 'list', 'aria-label': o.label,
  });
  const list = h('ul', { id: listID, class: 'combo-list', role: 'listbox', hidden: true });
  const chips = h('span', { class: 'chips' });
  const element = h('div', { class: `combo ${o.multi ? 'multi' : ''}` }, chips, input, list);

  const show = (visible) => {
    list.hidden = !visible;
    input.setAttribute('aria-expanded', String(visible));
    if (visible) {
      list.scrollIntoView({ block: 'nearest' });
    } else {
      active = -1;
      input.removeAttribute('aria-activedescendant');
    }
  };
  const mark = (index) => {
    active = index;
    [...list.querySelectorAll('[role=option]')].forEach((option, at) => {
      option.setAttribute('aria-selected', String(at === index));
      if (at === index) {
        option.scrollIntoView({ block: 'nearest' });
        input.setAttribute('aria-activedescendant', option.id);
      }
    });
  };
  const pick = (option) => {
    if (o.multi) {
      chosen = chosen.some((c) => c.value === option.value) ? chosen.filter((c) => c.value !== option.value) : [...chosen, option];
      input.value = '';
    } else {
      chosen = [option];
      input.value = option.label;
    }
    drawChips();
    show(false);
    o.changed?.();
  };
  const drawChips = () => {
    chips.replaceChildren();
    if (!o.multi) return;
    for (const c of chosen) {
      const remove = () => {
        chosen = chosen.filter((other) => other !== c);
        drawChips();
        o.changed?.();
        input.focus();
      };
      chips.append(h('span', { class: 'chip' }, c.label, h('button', { type: 'button', 'aria-label': `Remove ${c.label}`, onclick: remove }, '×')));
    }
  };
  const note = (text) => {
    list.replaceChildren(h('li', { class: 'combo-note', role: 'presentation' }, text));
    show(true);
  };
  const offer = async () => {
    const typed = !o.multi && chosen[0]?.label === input.value ? '' : input.value.trim();
    const request = ++lastRequest;
    if (typed.length < (o.minimum ?? 0)) {
      offered = [];
      note(`Type ${o.minimum} or more characters`);
      return;
    }
    try {
      const found = await o.load(typed);
      if (request !== lastRequest) return; // there is a later request
      offered = found;
    } catch (error) {
      if (request === lastRequest) note(error.message);
      return;
    }
    list.replaceChildren();
    let group;
    offered.forEach((option, index) => {
      if (option.group !== undefined && option.group !== group) list.append(h('li', { class: 'combo-group', role: 'presentation' }, (group = option.group)));
      const li = h('li', { id: `${listID}-${index}`, role: 'option', 'aria-selected': 'false', testid: `option-${option.value}` },
        h('span', null, option.label), option.detail && h('small', null, option.detail));
      // mousedown instead of click: otherwise the field would lose the focus first, which closes the list.
      li.addEventListener('mousedown', (event) => {
        event.preventDefault();
        pick(option);
      });
      list.append(li);
    });
    if (offered.length === 0) note('Nothing found');
    else {
      show(true);
      mark(0);
    }
  };
  input.addEventListener('focus', offer);
  // mousedown instead of click: the click that focuses the field would load twice.
  input.addEventListener('mousedown', () => document.activeElement === input && list.hidden && offer());
  input.addEventListener('input', () => {
    if (!o.multi && chosen.length) {
      chosen = [];
      o.changed?.();
    }
    offer();
  });
  input.addEventListener('blur', () => {
    lastRequest++;
    show(false);
    if (!o.multi) input.value = chosen[0]?.label ?? '';
  });
  input.addEventListener('keydown', (event) => {
    const open = !list.hidden && offered.length > 0;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      if (!open) offer();
      else mark((active + (event.key === 'ArrowDown' ? 1 : offered.length - 1)) % offered.length);
    } else if (event.key === 'Enter') {
      event.preventDefault(); // selects; must not submit the form
      if (open && active >= 0) pick(offered[active]);
      else offer();
    } else if (event.key === 'Escape' && !list.hidden) {
      event.preventDefault();
      event.stopPropagation(); // closes the list, but not the dialog
      show(false);
    } else if (event.key === 'Backspace' && o.multi && input.value === '' && chosen.length) {
      chosen = chosen.slice(0, -1);
      drawChips();
      o.changed?.();
    }
  });
  // Browsers send no keypress after a prevented keydown, but automation tools do.
  input.addEventListener('keypress', (event) => event.key === 'Enter' && event.preventDefault());
  if (!o.multi && chosen[0]) input.value = chosen[0].label;
  drawChips();
  return { element, value: () => (o.multi ? chosen.map((c) => c.value) : (chosen[0]?.value ?? '')) };
}
