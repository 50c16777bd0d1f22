// Serves HTTP over `wasi:http`, and calls out with the web's own `fetch`.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';
import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from 'wasi:http/types@0.2.10';

// What a stream is asked for and given at a time, in bytes; `blockingWriteAndFlush` takes no more.
const CHUNK = 4096n;

let served = 0;

export const incomingHandler = {
  async handle(request, out) {
    served += 1;
    const url = new URL(request.pathWithQuery() ?? '/', 'http://localhost');
    switch (url.pathname) {
      case '/':
        return answer(out, 200, 'Hello from JavaScript!\n');
      case '/echo':
        return echo(request, out);
      case '/env':
        return env(url.searchParams.get('name'), out);
      case '/count':
        return answer(out, 200, `${served}\n`);
      case '/fetch':
        return call(url.searchParams.get('url'), out);
      default:
        return answer(out, 404, `no ${url.pathname}\n`);
    }
  },
};

function echo(request, out) {
  const body = request.consume();
  const from = body.stream();
  respond(out, 200, (to) => {
    for (;;) {
      try {
        to.blockingWriteAndFlush(from.blockingRead(CHUNK));
      } catch (error) {
        if (error.payload?.tag === 'closed') break;
        throw error;
      }
    }
    // A child goes before what it is of.
    from[Symbol.dispose]();
  });
}

function env(name, out) {
  const found = getEnvironment().find(([key]) => key === name);
  if (found) answer(out, 200, `${found[1]}\n`);
  else answer(out, 404, `no variable ${name}\n`);
}

async function call(url, out) {
  try {
    const response = await fetch(url);
    answer(out, response.status, await response.text());
  } catch (error) {
    console.error(`calling ${url}: ${error}`);
    answer(out, 502, `${error}\n`);
  }
}

function answer(out, status, text) {
  const bytes = new TextEncoder().encode(text);
  respond(out, status, (to) => {
    for (let at = 0; at < bytes.length; at += Number(CHUNK)) {
      to.blockingWriteAndFlush(bytes.subarray(at, at + Number(CHUNK)));
    }
  });
}

function respond(out, status, write) {
  const response = new OutgoingResponse(new Fields());
  response.setStatusCode(status);
  const body = response.body();
  ResponseOutparam.set(out, { tag: 'ok', val: response });
  const to = body.write();
  write(to);
  to[Symbol.dispose]();
  OutgoingBody.finish(body, undefined);
}
