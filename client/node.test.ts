import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openScene, type Scene } from '../test/client.ts'
import { ADMIN_KEY, tempFolder } from '../test/server.ts'
import { fileSpool } from './node.ts'

const release = (id: number) => ({ op: 'release', request_id: `r${id}`, account: 'a' }) as const

test('a spool in a file has in the next process what was not told in the last, in order', () => {
  const folder = tempFolder()
  const path = join(folder.path, 'spool')
  const first = fileSpool(path)
  for (let id = 0; id < 5; id++) first.add(release(id))
  first.drop(2)
  first.add(release(5))
  first.close?.()
  const second = fileSpool(path)
  assert.deepEqual(second.first(10), [2, 3, 4, 5].map(release))
  second.close?.()
  appendFileSync(path, 'null\n7\n\0\0\n{}\n{"op":"rele')
  const third = fileSpool(path)
  assert.equal(third.size, 4)
  third.drop(4)
  third.close?.()
  assert.equal(fileSpool(path).size, 0)
  assert.equal(readFileSync(path, 'utf8'), '')
  folder.remove()
})

test('a spool that is used for long stays small', () => {
  const folder = tempFolder()
  const path = join(folder.path, 'spool')
  const spool = fileSpool(path)
  spool.add(release(0))
  for (let id = 1; id < 5_000; id++) {
    spool.add(release(id))
    spool.drop(1)
  }
  assert.ok(readFileSync(path).length < 200_000)
  spool.close?.()
  assert.deepEqual(fileSpool(path).first(2), [release(4_999)])
  folder.remove()
})

test('a file has one spool at a time, and that of a process that is no more is free', async () => {
  const folder = tempFolder()
  const path = join(folder.path, 'spool')
  const own = fileSpool(path)
  assert.throws(() => fileSpool(path), /give each client a file of its own/)
  own.close?.()
  const other = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { fileSpool } from '${new URL('./node.ts', import.meta.url)}'
       fileSpool(process.argv[1]).add({ op: 'release', request_id: 'r1', account: 'a' })
       console.log('has it')
       setInterval(() => {}, 1000)`,
      '--',
      path,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(other.stdout, 'data')
  assert.throws(() => fileSpool(path), new RegExp(`process ${other.pid}:`))
  other.kill('SIGKILL')
  await once(other, 'exit')
  const next = fileSpool(path)
  assert.deepEqual(next.first(2), [release(1)])
  own.add(release(7))
  own.close?.()
  assert.throws(() => fileSpool(path), /give each client/, 'what is closed twice frees nothing of others')
  next.close?.()
  assert.deepEqual(readFileSync(path, 'utf8').includes('r7'), false)
  // A process of that id runs, but it is another.
  writeFileSync(`${path}.lock`, `${process.pid} 1`)
  if (process.platform === 'linux') assert.equal(fileSpool(path).size, 1)
  folder.remove()
})

test('what the disk has no room for is kept all the same, and written when there is room again', async () => {
  const folder = tempFolder()
  const path = join(folder.path, 'spool')
  const errors: unknown[] = []
  const spool = fileSpool(path, { onError: (error) => errors.push(error) })
  spool.add(release(0))
  // A folder in its place can no more be written than a disk that is full.
  rmSync(path)
  mkdirSync(path)
  spool.add(release(1))
  spool.drop(1)
  assert.equal(errors.length, 1)
  assert.deepEqual(spool.first(2), [release(1)])
  rmdirSync(path)
  await pause(1_100)
  spool.add(release(2))
  spool.close?.()
  assert.deepEqual(fileSpool(path).first(3), [1, 2].map(release))
  folder.remove()
})

describe('a process that is told to end', () => {
  let scene: Scene
  before(async () => {
    scene = await openScene()
  })
  after(() => scene.close())

  const PROGRAM = `
    import { createClient } from '${new URL('./index.ts', import.meta.url)}'
    import { closeOnSignals, fileSpool } from '${new URL('./node.ts', import.meta.url)}'
    const [url, key, spool] = process.argv.slice(1)
    const client = createClient({ url, key, spool: fileSpool(spool), deadlineMs: 2000, onUnavailable: 'open' })
    closeOnSignals(client)
    for (const used of [1, 2, undefined]) {
      client.access({ account: 'ends', feature: 'write', estimate: { words: 10 } }, async (lease) => {
        if (used !== undefined) lease.report({ words: used })
        console.log('runs')
        await new Promise((_, reject) => lease.signal.addEventListener('abort', () => reject(lease.signal.reason)))
      }).catch(() => {})
    }
    setInterval(() => {}, 1000)
  `
  async function startProgram(spool: string) {
    const child = spawn(
      process.execPath,
      ['--input-type=module', '-e', PROGRAM, '--', scene.url, ADMIN_KEY, spool],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let runs = 0
    for await (const piece of child.stdout) {
      runs += String(piece).split('runs').length - 1
      if (runs === 3) break
    }
    return child
  }

  test('settles what was used, gives back the rest, and ends by the signal', async () => {
    await scene.account('ends', '100')
    const folder = tempFolder()
    const child = await startProgram(join(folder.path, 'spool'))
    child.kill('SIGTERM')
    const [, signal] = await once(child, 'exit')
    assert.equal(signal, 'SIGTERM')
    const { credits } = await scene.client().account('ends')
    assert.deepEqual([credits.available, credits.held], ['97', '0'])
    folder.remove()
  })

  test('where Sluice is away, leaves what it could not tell to the next process', async () => {
    const folder = tempFolder()
    const path = join(folder.path, 'spool')
    const before = (await scene.client().account('ends')).credits.available
    const child = await startProgram(path)
    await scene.kill()
    child.kill('SIGTERM')
    await once(child, 'exit')
    const left = fileSpool(path)
    assert.equal(left.size, 3)
    await scene.restart()
    const next = scene.client({ spool: left })
    assert.ok(await next.flush())
    const { credits } = await next.account('ends')
    assert.deepEqual([Number(credits.available), credits.held], [Number(before) - 3, '0'])
    folder.remove()
  })
})
