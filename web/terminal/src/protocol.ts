// The wire protocol: ttyd's letters, and our extension of it. What each means
// is told in the Go package internal/runner/ttyd.

export const client = { input: '0', resize: '1', ack: 'A', newShell: 'N' } as const;

export const server = {
  output: '0', title: '1', preferences: '2',
  state: 'S', modes: 'M', size: 'Z', answers: 'L', exit: 'X', typed: 'K',
} as const;

/** Size of a terminal in cells. */
export interface Size {
  columns: number;
  rows: number;
}

/** Which terminal this is, and where in its output the next byte stands. */
export interface State {
  terminal: string;
  instance: string;
  offset: number;
  /** Output before this offset is a replay: it must not be answered. */
  live: number;
  /** The screen starts anew. */
  reset: boolean;
  /** How many bytes of this page's input have come. */
  input: number;
}

/** Where a viewer stood when it was cut. */
export interface Resume {
  instance: string;
  offset: number;
  /** Names this page, so that its input can go on where it was cut. */
  client: string;
}

/** How a shell ended. */
export interface Exit {
  code: number;
  text: string;
}

const encoder = new TextEncoder();

/** A message of letter and payload. */
export function message(letter: string, payload: string | Uint8Array): Uint8Array<ArrayBuffer> {
  const body = typeof payload === 'string' ? encoder.encode(payload) : payload;
  const bytes = new Uint8Array(1 + body.length);
  bytes[0] = letter.charCodeAt(0);
  bytes.set(body, 1);
  return bytes;
}
