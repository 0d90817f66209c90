import { message, type Resume, type Size } from './protocol';

/** What a connection tells and asks its owner. */
export interface Owner {
  /** The terminal to share, empty for a new one. */
  session(): string;
  size(): Size;
  /** Where to go on; empty values for a fresh start. */
  resume(): Resume;
  receive(letter: string, payload: Uint8Array): void;
  /** A connection stands, or why there is none. */
  status(connected: boolean, reason: string): void;
  /** The server ended the terminal: no reconnection happens by itself. */
  ended(reason: string): void;
}

const firstWait = 200;
const longestWait = 8000;
/** A timer that is later than this tells that the machine slept. */
const slept = 20_000;
const beat = 5000;

/** Connection is a WebSocket that comes back after every cut. */
export class Connection {
  private socket: WebSocket | undefined;
  private wait = firstWait;
  private timer = 0;
  private attempt = 0;

  constructor(private readonly owner: Owner) {
    let last = Date.now();
    setInterval(() => {
      if (Date.now() - last > slept) this.renew();
      last = Date.now();
    }, beat);
    addEventListener('online', () => this.renew());
  }

  /** Connects now, whatever there was. */
  renew(): void {
    this.wait = firstWait;
    this.owner.status(false, '');
    void this.open();
  }

  get connected(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(letter: string, payload: string | Uint8Array): void {
    if (this.connected) this.socket!.send(message(letter, payload));
  }

  private async open(): Promise<void> {
    const attempt = ++this.attempt;
    clearTimeout(this.timer);
    this.drop();
    let token: string;
    try {
      const reply = await fetch('token', { cache: 'no-store', signal: AbortSignal.timeout(longestWait) });
      if (!reply.ok) throw new Error(await reply.text());
      token = ((await reply.json()) as { token: string }).token;
    } catch (error) {
      if (attempt === this.attempt) this.again(error instanceof Error ? error.message : '');
      return;
    }
    if (attempt !== this.attempt) return;
    const url = new URL('ws', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    url.search = new URLSearchParams({ session: this.owner.session() }).toString();
    const socket = new WebSocket(url, ['tty']);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.wait = firstWait;
      const hello = { AuthToken: token, ...this.owner.size(), resume: this.owner.resume() };
      socket.send(new TextEncoder().encode(JSON.stringify(hello)));
      this.owner.status(true, '');
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      const bytes = new Uint8Array(event.data);
      this.owner.receive(String.fromCharCode(bytes[0]!), bytes.subarray(1));
    };
    socket.onclose = (event) => {
      if (event.code === 1000) {
        this.drop();
        this.owner.ended(event.reason);
      } else {
        if (event.code === 1013) this.wait = longestWait; // the server is full
        this.again(event.reason);
      }
    };
    this.socket = socket;
  }

  /** Forgets the socket, so that none of its messages comes any more. */
  private drop(): void {
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = undefined;
  }

  private again(reason: string): void {
    this.drop();
    this.owner.status(false, reason);
    clearTimeout(this.timer);
    // The jitter keeps many pages from coming back in step.
    this.timer = setTimeout(() => void this.open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(2 * this.wait, longestWait);
  }
}
