import { ClipboardAddon } from '@xterm/addon-clipboard';
import { FitAddon } from '@xterm/addon-fit';
import { ImageAddon } from '@xterm/addon-image';
import { UnicodeGraphemesAddon } from '@xterm/addon-unicode-graphemes';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { WebglAddon } from '@xterm/addon-webgl';
import { Terminal, type ITheme } from '@xterm/xterm';
import type { Size } from './protocol';

const dark: ITheme = {
  background: '#16181d', foreground: '#e3e5e8', cursor: '#e3e5e8', cursorAccent: '#16181d',
  selectionBackground: '#44506a',
};

const light: ITheme = {
  background: '#ffffff', foreground: '#1f2328', cursor: '#1f2328', cursorAccent: '#ffffff',
  selectionBackground: '#b6d6fd',
  black: '#24292f', red: '#b3202c', green: '#1a7f37', yellow: '#7d5b00',
  blue: '#0757ba', magenta: '#8035c9', cyan: '#146a70', white: '#5d656e',
  brightBlack: '#4a5159', brightRed: '#8f1521', brightGreen: '#116329', brightYellow: '#633c01',
  brightBlue: '#0a3069', brightMagenta: '#5a1d9c', brightCyan: '#0b4f54', brightWhite: '#8a929a',
};

/** A terminal on the page that fills element; fit tells the size that would. */
export function makeScreen(element: HTMLElement): { term: Terminal; fit: () => Size } {
  const bright = matchMedia('(prefers-color-scheme: light)');
  const term = new Terminal({
    allowProposedApi: true, // for graphemes and the reading of parsed sequences
    cursorBlink: true,
    fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
    fontSize: 14,
    minimumContrastRatio: 4.5, // dark text on a dark colour is no text
    scrollback: 10_000,
    theme: bright.matches ? light : dark,
  });
  bright.addEventListener('change', () => {
    term.options.theme = bright.matches ? light : dark;
  });

  const fitter = new FitAddon();
  term.loadAddon(fitter);
  term.loadAddon(new UnicodeGraphemesAddon());
  term.loadAddon(new WebLinksAddon());
  term.loadAddon(new ImageAddon());
  term.loadAddon(new ClipboardAddon(undefined, {
    readText: () => '', // what the user copied elsewhere is no business of a program in the session
    writeText: async (_, text) => {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        // The browser allows it only on a focused, secure page.
      }
    },
  }));
  term.open(element);
  drawFast(term);
  copyKeys(term);
  return {
    term,
    fit: () => {
      const fitting = fitter.proposeDimensions();
      return { columns: fitting?.cols ?? 80, rows: fitting?.rows ?? 24 };
    },
  };
}

/** Draws by WebGL where there is some; the DOM does it otherwise. */
function drawFast(term: Terminal): void {
  try {
    const webgl = new WebglAddon();
    webgl.onContextLoss(() => webgl.dispose());
    term.loadAddon(webgl);
  } catch {
    // No WebGL here.
  }
}

/** Ctrl+Shift+C copies the selection, Ctrl+Shift+V is left to the browser. */
function copyKeys(term: Terminal): void {
  term.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return true;
    switch (event.code) {
      case 'KeyC':
        if (event.type === 'keydown') {
          event.preventDefault();
          document.execCommand('copy'); // works without the permission that the clipboard's API asks for
        }
        return false;
      case 'KeyV':
      case 'KeyF':
        return false;
      default:
        return true;
    }
  });
}
