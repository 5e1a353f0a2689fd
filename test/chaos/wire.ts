/** A wire between node and PostgreSQL that the test may cut, at any moment and in the middle of a commit. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { Random } from '../../src/sim/random.ts'

/** How a commit is met: it never arrives, half of what it came with arrives, or its answer does not. */
const CUTS = ['before', 'within', 'after'] as const
export type Cut = (typeof CUTS)[number]

export interface Wire {
  readonly url: string
  /** Cuts about every tenth commit, and any connection now and then, until `mend`. */
  rage(random: Random): void
  mend(): void
  /** How often each has happened. */
  readonly cuts: Readonly<Record<Cut | 'any', number>>
  close(): Promise<void>
}

interface Link {
  readonly node: Socket
  readonly server: Socket
}

/** A command in plain SQL ends with a zero byte. */
const COMMIT = Buffer.from('commit\0')
const ONCE_IN = 10
const ANY_EVERY_MS = 40

export async function layWire(url: string): Promise<Wire> {
  const { port, hostname } = new URL(url)
  const links = new Set<Link>()
  const cuts = { before: 0, within: 0, after: 0, any: 0 }
  let random: Random | undefined
  let timer: NodeJS.Timeout | undefined

  function drop(link: Link): void {
    links.delete(link)
    link.node.destroy()
    link.server.destroy()
  }

  function meetCommit(link: Link, bytes: Buffer, how: Cut): void {
    cuts[how]++
    if (how === 'before') return drop(link)
    link.server.removeAllListeners('data')
    if (how === 'within') link.server.end(bytes.subarray(0, Math.floor(bytes.length / 2)), () => drop(link))
    else {
      // What was sent with it is answered first, statement by statement.
      link.server.on('data', (answer: Buffer) => {
        if (answer.includes('COMMIT\0') || answer.includes('ROLLBACK\0')) drop(link)
      })
      link.server.write(bytes)
    }
  }

  const listener = createServer((node) => {
    const link = { node, server: connect(Number(port), hostname) }
    links.add(link)
    node.on('data', (bytes: Buffer) => {
      if (random !== undefined && bytes.includes(COMMIT) && random.once(ONCE_IN))
        meetCommit(link, bytes, random.pick(CUTS))
      else link.server.write(bytes)
    })
    link.server.on('data', (bytes: Buffer) => node.write(bytes))
    for (const socket of [node, link.server])
      socket
        .setNoDelay()
        .on('error', () => {})
        .on('close', () => drop(link))
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const laid = new URL(url)
  laid.port = String((listener.address() as AddressInfo).port)

  const mend = (): void => {
    random = undefined
    clearInterval(timer)
  }
  return {
    url: laid.href,
    cuts,
    mend,
    rage(chance) {
      random = chance
      timer = setInterval(() => {
        if (links.size === 0) return
        cuts.any++
        drop(chance.pick([...links]))
      }, ANY_EVERY_MS)
    },
    async close() {
      mend()
      for (const link of links) drop(link)
      listener.close()
      await once(listener, 'close')
    },
  }
}
