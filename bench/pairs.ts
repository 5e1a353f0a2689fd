/** What a turn of pairs is measured by, whoever writes them. */
import { readFileSync } from 'node:fs'
import type { Marks } from './contestant.ts'
import { CALLERS, rateOf } from './workload.ts'

/** Lets all callers make pairs for a time: how many a second, and what one cost. */
export async function measurePairs(seconds: number, pair: () => Promise<void>): Promise<Marks> {
  let pairs = 0
  const written = bytesWritten()
  const cpu = process.cpuUsage()
  const cpuHere = process.threadCpuUsage()
  const perSecond = await rateOf(seconds, CALLERS, async () => {
    await pair()
    pairs++
  })
  const { user, system } = process.cpuUsage(cpu)
  const here = process.threadCpuUsage(cpuHere)
  const micros = (user + system) / pairs
  const microsHere = (here.user + here.system) / pairs
  return {
    perSecond,
    pairs,
    bytesPerPair: (bytesWritten() - written) / pairs,
    micros,
    microsHere,
    microsElsewhere: micros - microsHere,
    rssMb: process.memoryUsage.rss() / 1e6,
  }
}

/** What this process has had written to disk so far, its threads included. Linux alone counts it. */
function bytesWritten(): number {
  try {
    return Number(/^write_bytes: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1])
  } catch {
    return Number.NaN
  }
}
