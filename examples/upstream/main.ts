/** `npx node examples/upstream/main.ts`: README.md tells what it serves. */
import { parseArgs } from 'node:util'
import { MODELS, startUpstream } from './server.ts'

const USAGE = `Usage: npx node examples/upstream/main.ts [options]

  --port N                9000; 0 takes any that is free
  --host ADDRESS          127.0.0.1
  --tokens-per-second N   of each answer, 50; 0 is as fast as may be
  --render-ms N           how long a second of film takes, 500
  --seed N                another seed says other things, 1
  --key SECRET            what callers have to bring; without it any key will do
  --endless               texts end at their bound alone, or never
  --no-usage              no answer says what it used`

const { values } = parseArgs({
  allowNegative: true,
  options: {
    port: { type: 'string', default: '9000' },
    host: { type: 'string', default: '127.0.0.1' },
    'tokens-per-second': { type: 'string', default: '50' },
    'render-ms': { type: 'string', default: '500' },
    seed: { type: 'string', default: '1' },
    key: { type: 'string' },
    endless: { type: 'boolean', default: false },
    usage: { type: 'boolean', default: true },
    help: { type: 'boolean', default: false },
  },
})

function number(name: 'port' | 'tokens-per-second' | 'render-ms' | 'seed'): number {
  const given = Number(values[name])
  if (Number.isFinite(given) && given >= 0) return given
  process.stderr.write(`--${name} is ${values[name]}: give a number from 0 on\n`)
  process.exit(2)
}

if (values.help) process.stdout.write(`${USAGE}\n`)
else {
  const upstream = await startUpstream({
    host: values.host,
    port: number('port'),
    tokensPerSecond: number('tokens-per-second'),
    renderMs: number('render-ms'),
    seed: number('seed'),
    isEndless: values.endless,
    isUsageTold: values.usage,
    ...(values.key !== undefined && { key: values.key }),
  })
  process.stdout.write(`The upstream listens on ${upstream.url} (${Object.values(MODELS).join(', ')})\n`)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void upstream.close())
}
