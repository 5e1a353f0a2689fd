import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { createWaiting } from './waiting.ts'
import { createWatch, GATEWAY_METRICS } from './watch.ts'

test('docs/reference/metrics.md has every metric of the gateway in the order of the list', () => {
  const page = readFileSync(new URL('../../docs/reference/metrics.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split('\n## The gateway\n')
  const rows = section.split('\n').filter((line) => line.startsWith('| `'))
  assert.deepEqual(
    rows,
    GATEWAY_METRICS.map(({ name, type, labels, help }) => {
      const named = labels.map((label) => `\`${label}\``).join(', ')
      return `| \`${name}\` | ${type} | ${named} | ${help} |`
    }),
  )
})

test('calls and streams count as open until they end, and then by endpoint and status', () => {
  const waiting = createWaiting({ perAccount: 1, inAll: 1 })
  const watch = createWatch({ waiting, upstreams: new Map() }, undefined)
  const [call, stream] = [watch.begin(), watch.begin()]
  stream.endpoint = 'responses'
  stream.isStream = true
  const has = (line: string): void => assert.ok(watch.render().split('\n').includes(line), watch.render())
  has('sluice_gateway_open_calls 2')
  has('sluice_gateway_open_streams 1')
  watch.end(stream, 499, 12)
  watch.end(call, 404, 1)
  watch.end({ endpoint: 'POST /v1/rerank' }, 200, 1)
  has('sluice_gateway_open_calls 0')
  has('sluice_gateway_open_streams 0')
  has('sluice_gateway_calls_total{endpoint="responses",status="499"} 1')
  has('sluice_gateway_calls_total{endpoint="none",status="404"} 1')
  has('sluice_gateway_calls_total{endpoint="POST /v1/rerank",status="200"} 1')
})
