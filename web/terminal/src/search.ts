import { SearchAddon, type ISearchOptions } from '@xterm/addon-search';
import type { Terminal } from '@xterm/xterm';

const options: ISearchOptions = {
  decorations: {
    matchBackground: '#7a5c00', matchOverviewRuler: '#d9a400',
    activeMatchBackground: '#c25e00', activeMatchColorOverviewRuler: '#ff8c1a',
  },
};

/** Finds text in the terminal: Ctrl+Shift+F opens the bar. */
export function addSearch(term: Terminal, bar: HTMLFormElement): void {
  const addon = new SearchAddon();
  term.loadAddon(addon);
  const part = <T extends Element>(name: string) => bar.elements.namedItem(name) as unknown as T;
  const text = part<HTMLInputElement>('text');
  const count = part<HTMLOutputElement>('count');

  const close = () => {
    bar.hidden = true;
    addon.clearDecorations();
    term.focus();
  };
  const find = (forward: boolean, incremental = false) => {
    if (text.value === '') addon.clearDecorations();
    else if (forward) addon.findNext(text.value, { ...options, incremental });
    else addon.findPrevious(text.value, options);
  };

  addon.onDidChangeResults(({ resultIndex, resultCount }) => {
    count.value = resultCount === 0 ? 'none' : `${resultIndex + 1} / ${resultCount}`;
  });
  addEventListener('keydown', (event) => {
    if (event.ctrlKey && event.shiftKey && event.code === 'KeyF') {
      event.preventDefault();
      bar.hidden = false;
      text.select();
      text.focus();
    }
  });
  text.addEventListener('input', () => find(true, true));
  bar.addEventListener('submit', (event) => {
    event.preventDefault();
    find(true);
  });
  bar.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') close();
    if (event.key === 'Enter' && event.shiftKey) {
      event.preventDefault();
      find(false);
    }
  });
  part<HTMLButtonElement>('previous').addEventListener('click', () => find(false));
  part<HTMLButtonElement>('close').addEventListener('click', close);
}
