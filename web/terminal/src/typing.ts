/** The longest message of input, in bytes; a paste becomes several. */
const piece = 32 << 10;
/** How much unconfirmed input is kept to be repeated, in bytes. */
const limit = 4 << 20;

/**
 * Typing keeps what was typed until the server says that it came, so that a
 * cut connection loses no key and doubles none.
 */
export class Typing {
  private kept: Uint8Array[] = [];
  private start = 0; // offset of the first byte kept
  private size = 0;
  private ready = false;

  constructor(private readonly send: (bytes: Uint8Array) => void) {}

  /** Sends bytes, or keeps them for the next connection. */
  add(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += piece) {
      const part = bytes.subarray(at, at + piece);
      if (this.size + part.length > limit) return;
      this.kept.push(part);
      this.size += part.length;
      if (this.ready) this.send(part);
    }
  }

  /** The connection is gone. */
  cut(): void {
    this.ready = false;
  }

  /** The server has come as far as offset. */
  confirm(offset: number): void {
    while (this.kept.length > 0 && this.start < offset) {
      const first = this.kept[0]!;
      const done = Math.min(first.length, offset - this.start);
      this.start += done;
      this.size -= done;
      if (done === first.length) this.kept.shift();
      else this.kept[0] = first.subarray(done);
    }
    this.start = offset;
  }

  /** A connection stands, and the server has come as far as offset: the rest again. */
  resume(offset: number): void {
    this.confirm(offset);
    this.ready = true;
    for (const part of this.kept) this.send(part);
  }

  /** Another terminal: nothing of the input is meant for it. */
  forget(): void {
    this.kept = [];
    this.start = this.size = 0;
  }
}
