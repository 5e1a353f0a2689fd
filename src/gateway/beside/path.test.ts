import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pathOf } from './path.ts'

test('all spellings of a path are one', () => {
  const rows: readonly [target: string, path: string | undefined][] = [
    ['/', '/'],
    ['/a/b', '/a/b'],
    ['/a/b/', '/a/b/'],
    ['/a?x=/c', '/a'],
    ['/a#x', '/a'],
    ['//a///b', '/a/b'],
    ['/./a/./b', '/a/b'],
    ['/a/../b', '/b'],
    ['/../../b', '/b'],
    ['/a/b/..', '/a/'],
    ['/a/.', '/a/'],
    ['/%61/%2e%2e/b', '/b'],
    ['/%C3%A4', '/ä'],
    ['/a%252fb', '/a%2fb'],
    ['/a%2fb', undefined],
    ['/a%5Cb', undefined],
    ['/a\\b', undefined],
    ['/a%00', undefined],
    ['/a%0a', undefined],
    ['/%', undefined],
    ['/%ff', undefined],
    ['', undefined],
    ['*', undefined],
    ['a/b', undefined],
    ['http://host/a', undefined],
    [`/${'a'.repeat(20_000)}`, undefined],
  ]
  for (const [target, path] of rows) assert.equal(pathOf(target), path, target.slice(0, 40))
})
