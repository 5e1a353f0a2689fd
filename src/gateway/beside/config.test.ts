import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SluiceError } from '../../errors.ts'
import { readConfig } from '../config.ts'

const forward = (rule: string) => `forward_auth: { rules: [{ path: /a, feature: f${rule} }] }`
const rate = (rule: string) =>
  `grpc: { port: 0 }\nrate_limit: { rules: [{ domain: d, feature: f, ${rule} }] }`

test('a gateway that only stands beside other proxies needs no upstreams', () => {
  const { beside, routes } = readConfig(forward(''), {})
  assert.deepEqual([beside.forwardAuth?.rules.length, routes.length], [1, 0])
})

test('a mistake is told with its path', () => {
  const rows: readonly [text: string, path: string][] = [
    ['{}', '/routes'],
    ['grpc: { port: 0 }', '/grpc'],
    ["rate_limit: { rules: [{ domain: d, account: a, feature: f, cost: '1' }] }", '/rate_limit'],
    [forward(", cost: '1', quantities: { a: '1' }"), '/forward_auth/rules/0/cost'],
    [forward(', cost: 1'), '/forward_auth/rules/0/cost'],
    [forward(', hold: soon'), '/forward_auth/rules/0/hold'],
    [forward(', methods: [post]'), '/forward_auth/rules/0/methods/0'],
    ['forward_auth: { rules: [{ path: a, feature: f }] }', '/forward_auth/rules/0/path'],
    [rate("cost: '1'"), '/rate_limit/rules/0'],
    [rate("account: a, key: k, cost: '1'"), '/rate_limit/rules/0'],
    [rate('account: a'), '/rate_limit/rules/0'],
    [rate("key: k, subject: { user: u }, cost: '1'"), '/rate_limit/rules/0/subject'],
  ]
  for (const [text, path] of rows)
    assert.throws(
      () => readConfig(text, {}),
      (error) => {
        assert.ok(error instanceof SluiceError)
        assert.deepEqual([error.code, error.detail.path], ['invalid', path], text)
        return true
      },
    )
})
