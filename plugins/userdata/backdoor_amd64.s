#include "textflag.h"

// func in(r *registers)
TEXT ·in(SB), NOSPLIT, $0-8
	MOVQ r+0(FP), R8
	MOVL 0(R8), AX
	MOVL 4(R8), BX
	MOVL 8(R8), CX
	MOVL 12(R8), DX
	MOVL 16(R8), SI
	MOVL 20(R8), DI
	INL
	MOVL AX, 0(R8)
	MOVL BX, 4(R8)
	MOVL CX, 8(R8)
	MOVL DX, 12(R8)
	MOVL SI, 16(R8)
	MOVL DI, 20(R8)
	RET

// func hypervisor() (b, c, d uint32)
TEXT ·hypervisor(SB), NOSPLIT, $0-12
	MOVL $0, b+0(FP)
	MOVL $0, c+4(FP)
	MOVL $0, d+8(FP)
	MOVL $1, AX
	MOVL $0, CX
	CPUID
	BTL  $31, CX // a processor of the real world has it clear
	JCC  none
	MOVL $0x40000000, AX
	MOVL $0, CX
	CPUID
	MOVL BX, b+0(FP)
	MOVL CX, c+4(FP)
	MOVL DX, d+8(FP)

none:
	RET
