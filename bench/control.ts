/**
 * Questions to a contestant while another one runs: what memory and time it takes, and what its books say. Over a port of its own,
 * so that nothing of it passes through what is measured.
 */
import { createServer, type Server } from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Marks } from './contestant.ts'

/** Bytes that are in use after everything else was collected, and those that the system counts; time in microseconds. */
export interface Taken {
  readonly usedBytes: number
  readonly rssBytes: number
  readonly cpuMicros: number
}

export async function control(
  port: number,
  { books }: { readonly books: () => Promise<Marks> },
): Promise<Server> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const answers: Readonly<Record<string, () => object | Promise<object>>> = {
    '/cpu': () => {
      const { user, system } = process.cpuUsage()
      return { cpuMicros: user + system }
    },
    '/memory': () => {
      collect()
      const { heapUsed, external, rss } = process.memoryUsage()
      return { usedBytes: heapUsed + external, rssBytes: rss }
    },
    '/books': books,
  }
  const server = createServer(async (request, response) => {
    try {
      response.end(JSON.stringify(await answers[request.url ?? '']?.()))
    } catch (error) {
      response.writeHead(500).end(String((error as Error).stack))
    }
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  return server
}

export async function askControl<T>(port: number, path: string): Promise<T> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`)
  if (!answer.ok) throw new Error(await answer.text())
  return (await answer.json()) as T
}
