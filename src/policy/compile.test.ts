import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { checkPolicy } from './compile.ts'

const example = (name: string): string =>
  readFileSync(new URL(`../../examples/${name}.yaml`, import.meta.url), 'utf8')

for (const name of ['minimal', 'codex-and-sora']) {
  test(`the example ${name} compiles without complaints or warnings`, () => {
    const { complaints, warnings } = checkPolicy(example(name))
    assert.deepEqual({ complaints, warnings }, { complaints: [], warnings: [] })
  })
}
