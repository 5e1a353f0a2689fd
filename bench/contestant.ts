/**
 * One contestant is one process: no heap, no compiled code and no file of one influences another. The parent's side is
 * `enter`, the child's `perform`. While one runs the others wait and do nothing, so that they can take turns.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { SERVER_HEAP } from '../bin/heap.js'

/** Numbers by name, as one turn measured them. */
export type Marks = Readonly<Record<string, number>>

export interface Contestant {
  run(seconds: number): Promise<Marks>
  close(): Promise<void>
}

/** What a contestant is told before it begins. */
export type Settings = Readonly<Record<string, string | number | boolean>>

type Order = { readonly run: number } | { readonly close: true }
type Report = { readonly marks: Marks } | { readonly failure: string }

/** Those that stand for a server, or for what a server is held against, have the heap with which `sluice serve` starts. */
const SERVERS: ReadonlySet<string> = new Set([
  ...['served', 'bare', 'gateway', 'proxy'],
  ...['postgres', 'postgres-raw', 'postgres-rlf'],
])

/** Starts a contestant and waits until it is ready. `profileTo`, a folder, gets a CPU profile of it. */
export async function enter(name: string, settings: Settings = {}, profileTo?: string): Promise<Contestant> {
  const file = new URL(`./contestants/${name}.ts`, import.meta.url)
  const profiling =
    profileTo === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileTo}`, `--cpu-prof-interval=500`]
  const execArgv = [...(SERVERS.has(name) ? SERVER_HEAP : []), ...profiling]
  const child = fork(file, [JSON.stringify(settings)], { execArgv, execPath: process.execPath })
  const ended = once(child, 'exit')

  async function report(): Promise<Marks> {
    const answer = await Promise.race([
      once(child, 'message').then(([message]) => message as Report),
      ended.then(([code]): Report => ({ failure: `it ended with ${code}` })),
    ])
    if ('failure' in answer) throw new Error(`${name}: ${answer.failure}`)
    return answer.marks
  }
  await report()
  return {
    run(seconds) {
      child.send({ run: seconds } satisfies Order)
      return report()
    },
    async close() {
      if (child.connected) child.send({ close: true } satisfies Order)
      await ended
    },
  }
}

/** The whole life of a contestant in its own process. */
export async function perform(prepare: (settings: Settings) => Promise<Contestant>): Promise<void> {
  const report = (message: Report): void => void process.send?.(message)
  const told = (error: unknown): Report => ({
    failure: error instanceof Error ? (error.stack ?? error.message) : String(error),
  })
  // Without a parent nobody would ever end it.
  process.on('disconnect', () => process.exit(1))
  let contestant: Contestant
  try {
    contestant = await prepare(JSON.parse(process.argv[2] ?? '{}') as Settings)
  } catch (error) {
    report(told(error))
    return process.disconnect?.()
  }
  process.on('message', async (order: Order) => {
    try {
      if ('run' in order) return report({ marks: await contestant.run(order.run) })
      await contestant.close()
    } catch (error) {
      report(told(error))
    }
    if ('close' in order) {
      process.removeAllListeners('disconnect')
      process.disconnect?.()
    }
  })
  report({ marks: {} })
}
