// A field that finds as you type, for everything in Block Kit that picks from a long list: people, channels, and lists the
// app itself answers. Follows the ARIA combobox pattern: the list is announced, arrows move, Enter picks, Escape closes.

import { h } from './dom.js';

let serial = 0;

// combobox builds the field. o:
//   id, testid, placeholder, label
//   multi      several may be picked; they stand before the field as chips
//   chosen     what is picked at the start: [{value, label}]
//   minimum    how many characters before load is asked (0: at once)
//   load       (typed) → Promise of [{value, label, detail?, group?}]
//   changed    called after every pick or removal
// It returns {element, value()}: value() is a string ('' for none), or an array of them if multi.
export function combobox(o) {
  let chosen = [...(o.chosen ?? [])];
  let offered = [];
  let active = -1;
  let asked = 0;
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
    const turn = ++asked;
    if (typed.length < (o.minimum ?? 0)) {
      offered = [];
      note(`Type ${o.minimum} or more characters`);
      return;
    }
    try {
      const found = await o.load(typed);
      if (turn !== asked) return; // a later key has asked again
      offered = found;
    } catch (failure) {
      if (turn === asked) note(failure.message);
      return;
    }
    list.replaceChildren();
    let group;
    offered.forEach((option, index) => {
      if (option.group !== undefined && option.group !== group) list.append(h('li', { class: 'combo-group', role: 'presentation' }, (group = option.group)));
      const li = h('li', { id: `${listID}-${index}`, role: 'option', 'aria-selected': 'false', testid: `option-${option.value}` },
        h('span', null, option.label), option.detail && h('small', null, option.detail));
      // mousedown, not click: the field must not lose its focus, which would close the list first.
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
  // Not on click: the click that gives the field its focus would ask twice.
  input.addEventListener('mousedown', () => document.activeElement === input && list.hidden && offer());
  input.addEventListener('input', () => {
    if (!o.multi && chosen.length) {
      chosen = [];
      o.changed?.();
    }
    offer();
  });
  input.addEventListener('blur', () => {
    asked++;
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
      event.preventDefault(); // it picks; it never sends the form around it
      if (open && active >= 0) pick(offered[active]);
      else offer();
    } else if (event.key === 'Escape' && !list.hidden) {
      event.preventDefault();
      event.stopPropagation(); // closes the list, not the dialog around it
      show(false);
    } else if (event.key === 'Backspace' && o.multi && input.value === '' && chosen.length) {
      chosen = chosen.slice(0, -1);
      drawChips();
      o.changed?.();
    }
  });
  // The key press after a refused key down does not come from a keyboard, but it does from tools that type for people.
  input.addEventListener('keypress', (event) => event.key === 'Enter' && event.preventDefault());
  if (!o.multi && chosen[0]) input.value = chosen[0].label;
  drawChips();
  return { element, value: () => (o.multi ? chosen.map((c) => c.value) : (chosen[0]?.value ?? '')) };
}
