import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { openScene, type Scene } from '../test/client.ts'
import { SluiceError } from './index.ts'

describe('calls made together', () => {
  let scene: Scene
  before(async () => {
    scene = await openScene()
    await scene.account('a', '1000', 'steady')
  })
  after(() => scene.close())

  /** A client that notes the paths it asks for. */
  function noting() {
    const paths: string[] = []
    const client = scene.client({
      fetch: (input, init) => {
        paths.push(new URL(String(input)).pathname)
        return fetch(input, init)
      },
    })
    return { paths, client }
  }
  const record = (request_id: string, words: number) => ({
    request_id,
    account: 'a',
    feature: 'write',
    usage: { words },
  })

  test('travel together, shared out over four requests, and each gets its own answer', async () => {
    const { paths, client } = noting()
    const answers = await Promise.all(
      Array.from({ length: 600 }, (_, i) => client.record(record(`t${i}`, i % 7))),
    )
    assert.deepEqual(
      answers.map(({ request_id, charged }) => [request_id, charged]),
      Array.from({ length: 600 }, (_, i) => [`t${i}`, String(i % 7)]),
    )
    assert.deepEqual(paths, ['/v1/batch', '/v1/batch', '/v1/batch', '/v1/batch'])
  })

  test('one that is wrong is told, and the others are done', async () => {
    const { paths, client } = noting()
    const [good, wrong, unknown] = await Promise.allSettled([
      client.record(record('one', 1)),
      client.record({ ...record('two', 1), feature: 'paint' }),
      client.settle({ request_id: 'nobody knows', account: 'a' }),
    ])
    assert.deepEqual(paths, ['/v1/batch'])
    assert.equal(good.status, 'fulfilled')
    assert.ok(wrong.status === 'rejected' && wrong.reason instanceof SluiceError)
    assert.equal(wrong.reason.code, 'feature_unknown')
    assert.equal(wrong.reason.path, '/feature')
    assert.ok(unknown.status === 'rejected' && (unknown.reason as SluiceError).status === 400)
  })

  test('one alone travels by itself', async () => {
    const { paths, client } = noting()
    await client.record(record('alone', 1))
    assert.deepEqual(paths, ['/v1/record'])
  })

  test('a call in a hurry, and one that nobody waits for any more, end for themselves alone', async () => {
    const client = scene.client()
    scene.server.process.kill('SIGSTOP')
    const controller = new AbortController()
    const calls = Promise.allSettled([
      client.record(record('patient', 1)),
      client.record(record('hurried', 1), { deadlineMs: 50 }),
      client.record(record('left', 1), { signal: controller.signal }),
    ])
    setTimeout(() => controller.abort(new Error('left')), 20)
    setTimeout(() => scene.server.process.kill('SIGCONT'), 300)
    const [patient, hurried, left] = await calls
    assert.equal(patient.status, 'fulfilled')
    assert.ok(hurried.status === 'rejected' && (hurried.reason as SluiceError).code === 'unavailable')
    assert.ok(left.status === 'rejected' && /left/.test(String(left.reason)))
  })
})
