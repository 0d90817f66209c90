import type { Terminal } from '@xterm/xterm';
import { answerOnlyWhen } from './answers';
import { Connection, type Owner } from './connection';
import { client, server, type Exit, type Resume, type Size, type State } from './protocol';
import { Typing } from './typing';

/** How much output, in bytes, is processed before the server is told. */
const ackEvery = 16 << 10;
/** Keys typed later than this after a cut, in milliseconds, are not kept. */
const keepKeys = 5000;

const decoder = new TextDecoder();
const encoder = new TextEncoder();

function parse<T>(payload: Uint8Array): T {
  return JSON.parse(decoder.decode(payload)) as T;
}

/**
 * Viewer shows one terminal of the session and types into it. Everything that
 * the server says is applied in the order of the output, after what came
 * before it was parsed, so that every viewer has the same screen.
 */
export class Viewer implements Owner {
  private readonly connection = new Connection(this);
  private instance = '';
  private received = 0; // offset behind the last byte that came
  private parsed = 0; // offset behind the last byte that is on the screen
  private acked = 0;
  private quiet = true;
  private leads = false;
  private live = 0;
  private dead = false;
  private over = false; // the server ended the terminal
  private asked: Size | undefined;
  private cutAt = 0; // when the connection went
  private readonly page = crypto.getRandomValues(new Uint32Array(4)).join('-');
  private readonly typing = new Typing((bytes) => this.connection.send(client.input, bytes));

  constructor(
    private readonly term: Terminal,
    private readonly fit: () => Size,
    private readonly showStatus: (text: string) => void,
  ) {
    answerOnlyWhen(term, () => this.quiet);
    term.onData((data) => this.type(encoder.encode(data)));
    term.onBinary((data) => this.type(Uint8Array.from(data, (char) => char.charCodeAt(0))));
    term.onTitleChange((title) => {
      document.title = title;
    });
    this.connection.renew();
  }

  /** The page has another size: the server decides what becomes of it. */
  resized(): void {
    const size = this.size();
    if (size.columns === this.asked?.columns && size.rows === this.asked.rows) return;
    this.asked = size;
    this.connection.send(client.resize, JSON.stringify(size));
  }

  session(): string {
    return new URLSearchParams(location.search).get('session') ?? sessionStorage.getItem('session') ?? '';
  }

  size(): Size {
    return this.fit();
  }

  resume(): Resume {
    this.asked = this.size();
    return { instance: this.instance, offset: this.received, client: this.page };
  }

  status(connected: boolean, reason: string): void {
    if (!connected) {
      this.typing.cut();
      this.cutAt ||= Date.now();
    }
    this.showStatus(connected ? '' : `Connecting…${reason ? ` (${reason})` : ''}`);
  }

  ended(reason: string): void {
    this.over = true;
    this.typing.cut();
    this.showStatus(`${reason || 'the terminal was closed'}: press Enter for a new one`);
  }

  receive(letter: string, payload: Uint8Array): void {
    switch (letter) {
      case server.output:
        this.received += payload.length;
        this.output(payload, this.received);
        break;
      case server.modes:
        this.term.write(payload);
        break;
      case server.state:
        this.begin(parse<State>(payload));
        break;
      case server.size: {
        const { columns, rows } = parse<Size>(payload);
        this.then(() => this.term.resize(columns, rows));
        break;
      }
      case server.answers:
        this.then(() => {
          this.leads = decoder.decode(payload) === '1';
          this.hush();
        });
        break;
      case server.title:
        document.title = decoder.decode(payload);
        break;
      case server.exit: {
        const { text } = parse<Exit>(payload);
        this.then(() => {
          this.dead = true;
          this.showStatus(`The shell ended (${text}): press Enter for a new one`);
        });
        break;
      }
      case server.typed:
        this.typing.confirm(Number(decoder.decode(payload)));
        break;
      default: // preferences, which the page does not take from outside
    }
  }

  /** Does something when all output so far is on the screen. */
  private then(action: () => void): void {
    this.term.write('', action);
  }

  private output(bytes: Uint8Array, end: number): void {
    this.term.write(bytes, () => {
      this.parsed = end;
      this.hush();
      if (end - this.acked >= ackEvery || end === this.received) {
        this.acked = end;
        this.connection.send(client.ack, String(end));
      }
    });
  }

  private begin(state: State): void {
    sessionStorage.setItem('session', state.terminal);
    if (this.instance !== '' && this.instance !== state.instance) this.typing.forget();
    this.instance = state.instance;
    this.cutAt = 0;
    this.received = state.offset;
    this.then(() => {
      if (state.reset) this.term.reset();
      this.parsed = this.acked = state.offset;
      this.live = state.live;
      this.dead = false;
      this.showStatus('');
      this.hush();
    });
    this.typing.resume(state.input);
  }

  private hush(): void {
    this.quiet = !this.leads || this.parsed < this.live;
  }

  /** Sends what was typed; Enter where the shell has ended asks for a new one. */
  private type(bytes: Uint8Array): void {
    if (this.over || this.dead) {
      if (bytes[0] !== 0x0d) return;
      if (this.over) this.connection.renew();
      else this.connection.send(client.newShell, '');
      this.over = false;
      return;
    }
    if (this.cutAt === 0 || Date.now() - this.cutAt < keepKeys) this.typing.add(bytes);
  }
}
