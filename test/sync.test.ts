import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { startServer, tempFolder } from './server.ts'

const POLICY = new URL('./crash-policy.yaml', import.meta.url).pathname
const REQUESTS = 20

test('no answer leaves before the sync that covers it', async (t) => {
  const strace = spawnSync('strace', ['-V'])
  assert.equal(
    strace.error,
    undefined,
    'install strace (Debian: apt-get install strace): this test traces system calls',
  )
  const folder = tempFolder()
  t.after(() => folder.remove())
  const trace = join(folder.path, 'trace')
  const calls = 'trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync,pwrite64'
  const server = await startServer(
    ['--store', `sqlite:${join(folder.path, 'sluice.db')}`, '--policy', POLICY],
    ['strace', '-f', '-y', '-s', '4096', '-e', calls, '-o', trace],
  )
  t.after(() => server.kill('SIGKILL'))
  await server.call('POST', '/v1/accounts', { id: 'a', plan: 'load' })
  for (let number = 0; number < REQUESTS; number++) {
    const body = {
      request_id: `traced-${number}-end`,
      account: 'a',
      subject: { user: 'u' },
      feature: 'work',
      estimate: { tokens: 1 },
    }
    assert.equal((await server.call('POST', '/v1/reserve', body)).status, 200)
  }
  await server.kill('SIGTERM')

  const events = readEvents(readFileSync(trace, 'utf8'))
  for (let number = 0; number < REQUESTS; number++) {
    const name = `traced-${number}-end`
    const heard = events.findIndex((event) => event.kind === 'in' && event.text.includes(name))
    const answered = events.findIndex((event) => event.kind === 'out' && event.text.includes(name))
    assert.ok(heard >= 0 && answered > heard, `the call ${name} and its answer stand in the trace`)
    // The write of the journal's row comes first, its sync after it, and only then the answer.
    const written = events.findLastIndex((event, place) => event.kind === 'wal' && place < answered)
    const synced = events.findLastIndex((event, place) => event.kind === 'sync' && place < answered)
    assert.ok(written > heard, `what ${name} changed was written`)
    assert.ok(synced > written, `what ${name} changed was synced before its answer left`)
  }
})

interface TraceEvent {
  readonly kind: 'in' | 'out' | 'wal' | 'sync'
  readonly text: string
}

/**
 * The trace in the order in which the calls ended (for a sync: it counts from its end) or, for what leaves the process,
 * began. strace splits a call that another thread interrupts into `<unfinished ...>` and `<... resumed>`.
 */
function readEvents(trace: string): TraceEvent[] {
  const begun = new Map<string, string>()
  const events: TraceEvent[] = []
  for (const line of trace.split('\n')) {
    const [, thread = '', rest = ''] = /^(\d+) +(.*)$/s.exec(line) ?? []
    if (rest.endsWith('<unfinished ...>')) {
      begun.set(thread, rest)
      if (isOut(rest)) events.push({ kind: 'out', text: rest })
      continue
    }
    const resumed = rest.startsWith('<... ')
    const text = resumed ? `${begun.get(thread) ?? ''}${rest}` : rest
    if (isOut(text)) {
      if (!resumed) events.push({ kind: 'out', text })
    } else if (/^(fsync|fdatasync)\(\d+<[^>]*-wal>/.test(text) && text.endsWith('= 0'))
      events.push({ kind: 'sync', text })
    else if (/^pwrite64\(\d+<[^>]*-wal>/.test(text)) events.push({ kind: 'wal', text })
    else if (/^(read|readv|recvfrom|recvmsg)\(\d+<(socket|TCP)/.test(text)) events.push({ kind: 'in', text })
  }
  return events
}

const isOut = (text: string): boolean => /^(write|writev|sendto|sendmsg)\(\d+<(socket|TCP)/.test(text)
