import { makeScreen } from './screen';
import { addSearch } from './search';
import { Viewer } from './viewer';

const element = document.querySelector<HTMLElement>('#terminal')!;
const status = document.querySelector<HTMLElement>('#status')!;

const { term, fit } = makeScreen(element);
addSearch(term, document.querySelector<HTMLFormElement>('#search')!);
const viewer = new Viewer(term, fit, (text) => {
  status.textContent = text;
  status.hidden = text === '';
});

let frame = 0;
new ResizeObserver(() => {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => viewer.resized());
}).observe(element);
term.focus();

// As on the page of the program ttyd: for scripts and for the curious.
Object.assign(window, { term });
