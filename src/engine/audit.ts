import type { Store } from '../store.ts'
import type { AuditOptions, AuditReport } from './contract.ts'
export async function auditStore(_store: Store, _options: AuditOptions): Promise<AuditReport> {
  throw new Error('pending')
}
