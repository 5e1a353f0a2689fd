/** The front door of the package: an engine, the stores it stands on, and policies written in TypeScript. */
export type {
  AuditOptions,
  AuditReport,
  Caller,
  Disagreement,
  Engine,
  EngineMetrics,
  EngineOptions,
  WatchOptions,
} from './engine.ts'
export { createEngine } from './engine.ts'
export type { ErrorCode, ErrorDetail } from './errors.ts'
export { ERRORS, SluiceError } from './errors.ts'
export type { Reason } from './kernel/reasons.ts'
export { REASONS } from './kernel/reasons.ts'
export { definePolicy } from './policy/define.ts'
export type { PolicyDocument } from './policy/schema.ts'
export type { MemoryOptions } from './store/memory.ts'
export { memoryStore } from './store/memory.ts'
export type { SqliteOptions } from './store/sqlite/store.ts'
export { sqliteReader, sqliteStore } from './store/sqlite/store.ts'
export type { Store } from './store.ts'
export type * from './wire.ts'
