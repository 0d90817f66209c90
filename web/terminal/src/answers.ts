import type { Terminal } from '@xterm/xterm';

/**
 * Keeps the emulator from answering queries, and from writing to the
 * clipboard, while quiet() holds: in a replay somebody answered long ago, and
 * of several viewers only one may answer, or the shell would read it as typed.
 */
export function answerOnlyWhen(term: Terminal, quiet: () => boolean): void {
  const csi = [
    { final: 'c' }, { prefix: '>', final: 'c' }, { prefix: '=', final: 'c' },
    { final: 'n' }, { prefix: '?', final: 'n' },
    { intermediates: '$', final: 'p' }, { prefix: '?', intermediates: '$', final: 'p' },
    { prefix: '>', final: 'q' }, { prefix: '?', final: 'u' },
  ];
  for (const id of csi) term.parser.registerCsiHandler(id, quiet);
  // Window reports; 22 and 23 keep titles and answer nothing.
  term.parser.registerCsiHandler({ final: 't' }, (params) => {
    const operation = Number(params[0]);
    return quiet() && operation > 10 && operation < 22;
  });
  term.parser.registerDcsHandler({ intermediates: '$', final: 'q' }, quiet);
  for (const id of [4, 10, 11, 12]) term.parser.registerOscHandler(id, (data) => quiet() && data.includes('?'));
  term.parser.registerOscHandler(52, quiet);
}
