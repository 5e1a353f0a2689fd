/** Nodes of the chaos tests: engines on one PostgreSQL, in this process or in one that can be killed. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { createEngine, type Engine } from '../../src/engine.ts'
import { type ErrorCode, type ErrorDetail, SluiceError } from '../../src/errors.ts'
import { type PostgresOptions, postgresStore } from '../../src/store/postgres/store.ts'
import { POLICY } from './policy.ts'

const CALLS = ['createAccount', 'grant', 'reserve', 'settle', 'release', 'record', 'explain'] as const
export type Node = Pick<Engine, (typeof CALLS)[number]>

export const startEngine = (options: PostgresOptions): Promise<Engine> =>
  createEngine({ store: postgresStore(options), policy: POLICY })

/** What the parent asks of a node's process, and what it is told. */
export interface Asked {
  readonly id: number
  readonly call: (typeof CALLS)[number]
  readonly args: readonly unknown[]
}
export interface Answered {
  readonly id: number
  readonly answer?: unknown
  readonly error?: { readonly code: ErrorCode; readonly message: string; readonly detail: ErrorDetail }
}

/** The process of the node was killed before it answered. */
export class NodeGone extends Error {
  override readonly name = 'NodeGone'
}

export interface NodeProcess {
  readonly node: Node
  kill(): Promise<void>
}

/** Starts a node in a process of its own, and waits until it takes calls. */
export async function startProcess(url: string): Promise<NodeProcess> {
  const child = fork(new URL('./child.ts', import.meta.url), [url], { stdio: 'inherit' })
  const waiting = new Map<number, PromiseWithResolvers<unknown>>()
  const ended = once(child, 'exit')
  child.on('message', ({ id, answer, error }: Answered) => {
    const one = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) one?.resolve(answer)
    else one?.reject(new SluiceError(error.code, error.message, error.detail))
  })
  child.once('exit', () => {
    for (const one of waiting.values()) one.reject(new NodeGone())
    waiting.clear()
  })
  await Promise.race([
    once(child, 'message'),
    ended.then(([code]) => Promise.reject(new Error(`the node ended with ${code} before it took calls`))),
  ])
  return {
    node: nodeIn(child, waiting),
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

function nodeIn(child: ChildProcess, waiting: Map<number, PromiseWithResolvers<unknown>>): Node {
  let calls = 0
  const ask =
    (call: Asked['call']) =>
    (...args: unknown[]) => {
      if (!child.connected) return Promise.reject(new NodeGone())
      const one = Promise.withResolvers<unknown>()
      const id = calls++
      waiting.set(id, one)
      // Where it cannot be sent, the process has ended: that is told to all who wait.
      child.send({ id, call, args } satisfies Asked, () => {})
      return one.promise
    }
  return Object.fromEntries(CALLS.map((call) => [call, ask(call)])) as unknown as Node
}
