import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { FIGURES, median } from './figures.ts'
import { SECTIONS } from './sections.ts'

const main = new URL('./main.ts', import.meta.url).pathname
const README = readFileSync(new URL('./README.md', import.meta.url), 'utf8')

async function bench(...args: string[]): Promise<{ readonly out: string; readonly code: number }> {
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [main, ...args])
    return { out: stdout, code: 0 }
  } catch (error) {
    const { stderr, code } = error as { stderr: string; code: number }
    return { out: stderr, code }
  }
}

describe('the bench', { timeout: 300_000 }, () => {
  it('gives one object with exactly the keys, each a number, and leaves nothing behind', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const tiny = ['--seconds', '0.05', '--turns', '1', '--accounts', '200', '--dir', folder]
    const few = ['--streams', '20', '--stream-seconds', '1']
    const { out, code } = await bench(...Object.keys(SECTIONS), '--json', ...tiny, ...few)
    assert.equal(code, 0, out)
    const figures = JSON.parse(out) as Record<string, number>
    assert.deepEqual(
      Object.keys(figures),
      FIGURES.map(({ key }) => key),
    )
    for (const [key, value] of Object.entries(figures)) {
      // Bytes are told by Linux alone.
      if (key === 'embedded_bytes_per_pair' && process.platform !== 'linux') continue
      // Differences of so few calls and streams are noise, and may fall on either side.
      if (key.startsWith('gateway_')) assert.ok(Number.isFinite(value), `${key} is ${value}`)
      else assert.ok(value > 0, `${key} is ${value}`)
    }
    assert.deepEqual(readdirSync(folder), [])
  })

  it('runs the sections that are named, and shows them beside their floors', async () => {
    const { out } = await bench('kernel', '--seconds', '0.05', '--turns', '1')
    assert.match(out, /kernel_decisions_per_s +[\d,]+ \/s +at least 400,000/)
    assert.doesNotMatch(out, /embedded/)
  })

  it('says in one line what it does not know', async () => {
    assert.deepEqual(await bench('speed'), {
      code: 1,
      out: 'there is no section speed: kernel, embedded, hot, http, client, gateway, rlf, accounts, postgres\n',
    })
    assert.deepEqual(await bench('--turns', '1.5'), {
      code: 1,
      out: '--turns is 1.5: give a whole number above zero\n',
    })
  })

  it('says in one line what is missing where no server answers', async () => {
    const { out, code } = await bench('postgres', '--postgres', 'postgres://127.0.0.1:1')
    assert.equal(code, 1)
    assert.match(out, /^no PostgreSQL can be used on 127\.0\.0\.1:1 \(.+\): start one, or name another .+\n$/)
  })

  it('has a README that tells every key and its floor', () => {
    for (const { key, ...figure } of FIGURES) {
      const line = README.split('\n').find((one) => one.startsWith(`| \`${key}\``))
      assert.ok(line !== undefined, `${key} is not in the README`)
      for (const floor of 'floors' in figure ? figure.floors : []) {
        const told = 'least' in floor ? floor.least : 'most' in floor ? floor.most : floor.ratio
        assert.ok(
          line.includes(told.toLocaleString('en-US')),
          `the floor of ${key}, ${told}, is not in its line`,
        )
      }
    }
  })

  it('takes medians', () => {
    assert.equal(median([3, 1, 2]), 2)
    assert.equal(median([4, 1, 2, 3]), 2.5)
  })
})
