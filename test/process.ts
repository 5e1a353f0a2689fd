/** Real processes of the command line, for the tests that need them. The runtime is this test's own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const ROOT = join(import.meta.dirname, '..')
const MAIN = join(ROOT, 'src/cli/main.ts')

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Nothing of the environment of whoever runs the tests decides what a command talks to. */
function environment(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('SLUICE_') && name !== 'NODE_TEST_CONTEXT',
  )
  return { ...Object.fromEntries(own), NO_COLOR: '1', ...more }
}

/** A folder of its own, and how to be rid of it. */
export function temporary(): { readonly folder: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-'))
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** Runs a command to its end. */
export async function sluice(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const child = start(args, env)
  const [stdout, stderr] = [gather(child.stdout), gather(child.stderr)]
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout: stdout(), stderr: stderr() }
}

export interface Server {
  readonly url: string
  /** What it has printed so far. */
  readonly stdout: () => string
  readonly stderr: () => string
  /** Sends a signal and answers its exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>
}

type Environment = Readonly<Record<string, string>>

/** Starts `serve` on a free port, and waits until it says where it listens. */
export const serve = (args: readonly string[], env: Environment = {}, cwd = ROOT): Promise<Server> =>
  standing(['serve', '--port', '0', ...args], env, /Sluice listens on (http:\S+?)(?=[;\s])/, cwd)

/** The same of `gateway`. */
export const gateway = (args: readonly string[], env: Environment = {}): Promise<Server> =>
  standing(['gateway', '--port', '0', ...args], env, /The gateway listens on (http:\S+?)(?=[;\s])/)

async function standing(
  args: readonly string[],
  env: Environment,
  tells: RegExp,
  cwd = ROOT,
): Promise<Server> {
  const child = start(args, env, cwd)
  const [stdout, stderr] = [gather(child.stdout), gather(child.stderr)]
  const ended = once(child, 'close') as Promise<[number | null]>
  const deadline = AbortSignal.timeout(30_000)
  let late = (): void => {}
  const told = new Promise<string>((resolve, reject) => {
    const look = (): void => {
      const url = tells.exec(stdout() + stderr())?.[1]
      if (url !== undefined) resolve(url)
    }
    child.stdout?.on('data', look)
    child.stderr?.on('data', look)
    const fail = (): void => reject(new Error(`${args[0]} did not start: ${stdout()}${stderr()}`))
    ended.then(fail)
    late = () => {
      child.kill('SIGKILL')
      fail()
    }
    deadline.addEventListener('abort', late)
  })
  const url = await told
  // It has started, and may run for as long as its test takes.
  deadline.removeEventListener('abort', late)
  return {
    url,
    stdout,
    stderr,
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      const [code] = await ended
      return code
    },
  }
}

function start(args: readonly string[], env: Readonly<Record<string, string>>, cwd = ROOT): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], {
    cwd,
    env: environment(env),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

function gather(stream: ChildProcess['stdout']): () => string {
  let text = ''
  stream?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  return () => text
}
