/** A real server in a process of its own, for tests that kill, trace or restart it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const MAIN = new URL('../src/cli/main.ts', import.meta.url).pathname
export const ADMIN_KEY = 'sk-test-admin-0123456789'

export interface RunningServer {
  readonly url: string
  readonly process: ChildProcess
  call(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ readonly status: number; readonly body: unknown }>
  kill(signal: NodeJS.Signals): Promise<void>
}

export function tempFolder(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'sluice-test-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

/** Starts `sluice serve` on a free port and waits until it tells where it listens. `wrap` stands before the command. */
export async function startServer(
  args: readonly string[],
  wrap: readonly string[] = [],
): Promise<RunningServer> {
  const command = [
    ...wrap,
    process.execPath,
    MAIN,
    'serve',
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--log-level',
    'silent',
    ...args,
  ]
  const child = spawn(command[0] as string, command.slice(1), {
    env: { ...process.env, SLUICE_ADMIN_KEY: ADMIN_KEY },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const url = await listening(child)
  return {
    url,
    process: child,
    async call(method, path, body) {
      const response = await fetch(`${url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${ADMIN_KEY}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      return { status: response.status, body: await response.json() }
    },
    async kill(signal) {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      process.kill(wrap.length === 0 ? (child.pid as number) : wrapped(child), signal)
      await ended
    },
  }
}

/** A tracer passes no signals on: the server is its only child. */
function wrapped(tracer: ChildProcess): number {
  return Number(readFileSync(`/proc/${tracer.pid}/task/${tracer.pid}/children`, 'utf8').trim())
}

/** The address is told in a line on standard output or standard error; an early end is told with what it said. */
function listening(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue
      createInterface({ input: stream }).on('line', (line) => {
        said += `${line}\n`
        const found = /listens on (http:\/\/127\.0\.0\.1:\d+)/.exec(line)
        if (found?.[1] !== undefined) resolve(found[1])
      })
    }
    child.once('exit', (code) =>
      reject(new Error(`the server ended with ${code} before it listened:\n${said}`)),
    )
    child.once('error', reject)
  })
}
